"""Readers of stored dialogues: LLaVA, ShareGPT, OpenAI's messages, Baize."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Any

from qlora.data.conversation import BadRecord, Conversation
from qlora.data.formats.dialogue import (
    ASSISTANT,
    USER,
    ImagePart,
    Message,
    converse,
    place_images,
    role,
)
from qlora.data.formats.image_keys import images_of
from qlora.data.formats.reader import IMAGE_IN_ANSWER, NO_ANSWER, Reader
from qlora.data.formats.weights import message_weight, record_weight

_LISTS = ("conversations", "conversation", "items")
_NAMES = (("from", "value"), ("role", "content"), ("user", "text"))
_IMAGES = ("image", "images")


class Llava(Reader):
    """LLaVA-Instruct and its relatives: `conversations` about an `image`, a list, or none."""

    name = "llava"
    texts = frozenset((*_LISTS, "system"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _dialogue(record) is not None and any(key in record for key in _IMAGES)

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        weight = record_weight(record)
        messages = [_message(one, weight) for one in _dialogue(record) or ()]
        return converse(id, messages, images_of(record, self.texts), self.image, self.repairs)


class ShareGpt(Llava):
    """Dialogues without images, in any order of roles and with the key names of several tools."""

    name = "sharegpt"

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _dialogue(record) is not None and not any(key in record for key in _IMAGES)


class Messages(Reader):
    """`messages` as OpenAI's API has them, with an `images` column or images in the content."""

    name = "messages"
    texts = frozenset(("messages",))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _filled(record.get("messages"))

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        given = record.get("messages")
        if not _filled(given):
            raise BadRecord(NO_ANSWER)
        weight = record_weight(record)
        messages = [
            _with_own_images(
                role(one.get("role")), _content(one.get("content")), one, ("content",), weight
            )
            for one in given or ()
        ]
        return converse(id, messages, images_of(record, self.texts), self.image, self.repairs)


class Baize(Reader):
    """Baize's self-chats: one text in which `[|Human|]` and `[|AI|]` open the turns.

    What stands before the first `[|Human|]` is a preamble; a second `[|AI|]` in a turn is text.
    """

    name = "baize"
    texts = frozenset(("topic", "input"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return isinstance(record.get("input"), str) and "[|Human|]" in record["input"]

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        if not self.matches(record):
            raise BadRecord(NO_ANSWER)
        pieces = record["input"].split("[|Human|]")[1:]
        if not pieces[-1].strip():
            pieces.pop()
        messages = []
        for piece in pieces:
            asked, mark, answered = piece.partition("[|AI|]")
            messages.append(Message(USER, (asked.strip(),)))
            if mark:
                messages.append(Message(ASSISTANT, (answered.strip(),)))
        return converse(id, messages, images_of(record, self.texts), self.image, self.repairs)


def _filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _dialogue(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    for key in _LISTS:
        value = record.get(key)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
    return None


def _with_own_images(
    role: str,
    parts: tuple[str | ImagePart, ...],
    message: dict[str, Any],
    texts: Collection[str],
    weight: float,
) -> Message:
    """A message with its weight, and with the images that it lists beside its text."""
    if role == ASSISTANT:
        weight *= message_weight(message)
    made = Message(role, parts, weight)
    listed = images_of(message, texts)
    if listed and role != USER:
        raise BadRecord(IMAGE_IN_ANSWER)
    return place_images([made], listed)[0] if listed else made


def _message(one: dict[str, Any], weight: float) -> Message:
    for who, what in _NAMES:
        if who in one and what in one:
            text = one[what]
            if text is not None and not isinstance(text, str):
                raise BadRecord(f"{what} that is no text")
            return _with_own_images(role(one[who]), (text or "",), one, (who, what), weight)
    raise BadRecord("message without role or text")


def _content(content: Any) -> tuple[str | ImagePart, ...]:
    """A message's content: a text, null, or a list of typed parts."""
    if content is None or isinstance(content, str):
        return (content or "",)
    if not isinstance(content, list):
        raise BadRecord("content that is no text")
    return tuple(made for part in content for made in _parts(part))


def _parts(part: Any) -> tuple[str | ImagePart, ...]:
    if isinstance(part, str):
        return (part,)
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        # An image beside the text of one part stands before it.
        images = images_of(part, ("text", "type"))
        return (*(ImagePart(image) for image in images), part["text"])
    # In parquet all parts have all keys, so a null says that there is none.
    if kind == "image":
        given = next((part[k] for k in ("image", "path", "url") if part.get(k)), None)
        # Without one it is the next of the record's list, unless it stands under another key.
        if given is None and (listed := images_of(part, ("type",))):
            return tuple(ImagePart(image) for image in listed)
        return (ImagePart(given),)
    if kind == "image_url" and part.get("image_url"):
        return (ImagePart(part["image_url"]),)
    raise BadRecord("content of an unknown type")
