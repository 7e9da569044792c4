"""Readers of stored dialogues: LLaVA, ShareGPT, OpenAI's messages, Baize."""

from __future__ import annotations

import random
from typing import Any

from qlora.data.conversation import BadRecord, Conversation
from qlora.data.formats.dialogue import ASSISTANT, USER, ImagePart, Message, converse, role
from qlora.data.formats.reader import NO_ANSWER, Reader

_LISTS = ("conversations", "conversation", "items")
_NAMES = (("from", "value"), ("role", "content"), ("user", "text"))
_IMAGES = ("image", "images")


class Llava(Reader):
    """LLaVA-Instruct and its relatives: `conversations` about an `image`, a list, or none."""

    name = "llava"

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _dialogue(record) is not None and any(key in record for key in _IMAGES)

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        messages = [_message(one) for one in _dialogue(record) or ()]
        if "video" in record:
            raise BadRecord("video")
        return converse(id, messages, _images(record), self.image, self.repairs)


class ShareGpt(Llava):
    """Dialogues without images, in any order of roles and with the key names of several tools."""

    name = "sharegpt"

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _dialogue(record) is not None and not any(key in record for key in _IMAGES)


class Messages(Reader):
    """`messages` as OpenAI's API has them, with an `images` column or images in the content."""

    name = "messages"

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return _filled(record.get("messages"))

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        given = record.get("messages")
        if not _filled(given):
            raise BadRecord(NO_ANSWER)
        messages = [
            Message(role(one.get("role")), _content(one.get("content"))) for one in given or ()
        ]
        return converse(id, messages, _images(record), self.image, self.repairs)


class Baize(Reader):
    """Baize's self-chats: one text in which `[|Human|]` and `[|AI|]` open the turns.

    What stands before the first `[|Human|]` is a preamble; a second `[|AI|]` in a turn is text.
    """

    name = "baize"

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
        return converse(id, messages, (), self.image, self.repairs)


def _filled(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, dict) for v in value)


def _dialogue(record: dict[str, Any]) -> list[dict[str, Any]] | None:
    for key in _LISTS:
        value = record.get(key)
        if isinstance(value, list) and all(isinstance(one, dict) for one in value):
            return value
    return None


def _message(one: dict[str, Any]) -> Message:
    for who, what in _NAMES:
        if who in one and what in one:
            text = one[what]
            if text is not None and not isinstance(text, str):
                raise BadRecord(f"{what} that is no text")
            return Message(role(one[who]), (text or "",))
    raise BadRecord("message without role or text")


def _images(record: dict[str, Any]) -> list[Any]:
    """What the record lists, whether one or several."""
    found: Any = next((record[key] for key in _IMAGES if record.get(key)), [])
    return list(found) if isinstance(found, (list, tuple)) else [found]


def _content(content: Any) -> tuple[str | ImagePart, ...]:
    """A message's content: a text, null, or a list of typed parts."""
    if content is None or isinstance(content, str):
        return (content or "",)
    if not isinstance(content, list):
        raise BadRecord("content that is no text")
    return tuple(_part(part) for part in content)


def _part(part: Any) -> str | ImagePart:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    # In parquet all parts have all keys, so a null says that there is none.
    if kind == "image":
        return ImagePart(next((part[k] for k in ("image", "path", "url") if part.get(k)), None))
    if kind == "image_url" and part.get("image_url"):
        return ImagePart(part["image_url"])
    raise BadRecord("content of an unknown type")
