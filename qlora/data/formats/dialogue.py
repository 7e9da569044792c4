"""From messages as people store them to questions and answers that alternate.

Contract: whatever the order of roles, the result begins with a question, ends with an answer, and
loses no answer that has a question. Each image stands before the question that it was part of.
Newlines inside questions are kept; Multimodal-GPT removed them all, so that lists and code in a
question ran together. White space around a message and around an image marker is not kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from qlora.data.conversation import BadRecord, Conversation, Exchange, ImageRef
from qlora.data.formats.image_keys import MARKER
from qlora.data.formats.reader import (
    EMPTY_ANSWER,
    EMPTY_QUESTION,
    IMAGE_IN_ANSWER,
    MORE_MARKERS,
    NO_ANSWER,
)

SYSTEM, USER, ASSISTANT = "system", "user", "assistant"
# Results of tools are given to the model, calls of tools are its own.
ROLES = {
    "system": SYSTEM,
    **dict.fromkeys(("human", "user", "prompter", "observation", "tool"), USER),
    **dict.fromkeys(
        ("gpt", "assistant", "chatgpt", "bot", "bard", "bing", "model", "function_call"), ASSISTANT
    ),
}

LEADING, TRAILING = "leading answer dropped", "trailing question dropped"

_SPACED_MARKER = re.compile(rf"\s*{MARKER.pattern}\s*", re.I)


@dataclass(frozen=True)
class ImagePart:
    """An image inside a message; without a source it is the next of the record's own list."""

    source: Any = None


@dataclass(frozen=True)
class Message:
    """A message: texts and images in their order, and of an answer how much its loss counts."""

    role: str
    parts: tuple[str | ImagePart, ...]
    weight: float = 1.0

    @property
    def text(self) -> str:
        return "\n".join(part for part in self.parts if isinstance(part, str)).strip()


@dataclass
class _Turn:
    """Neighbouring messages of one role."""

    role: str
    weight: float
    texts: list[str] = field(default_factory=list)
    images: list[ImageRef] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "\n".join(self.texts)


def role(name: Any) -> str:
    """One of three roles for the names in use. Raises `BadRecord`."""
    if not isinstance(name, str) or name.lower() not in ROLES:
        raise BadRecord("unknown role")
    return ROLES[name.lower()]


def converse(
    id: str,
    messages: Sequence[Message],
    listed: Sequence[Any],
    image: Callable[[Any], ImageRef],
    repairs: Counter[str],
) -> Conversation:
    """Build the conversation of a record.

    Args:
        id: of the record.
        messages: as stored.
        listed: the record's own images; `<image>` markers in questions and `ImagePart()` stand for
            them in order, and without any they go before the first question.
        image: resolves an image.
        repairs: counts messages at the ends that had to be dropped.

    Raises:
        BadRecord: an answer or question is empty, none is left, or images and markers differ.
    """
    placed = place_images(messages, listed)
    system = "\n".join(m.text for m in placed if m.role == SYSTEM).strip()
    turns = _merge([m for m in placed if m.role != SYSTEM], image)
    if not any(turn.role == ASSISTANT for turn in turns):
        raise BadRecord(NO_ANSWER)
    if turns[0].role == ASSISTANT:
        turns.pop(0)
        repairs[LEADING] += 1
    kept = len(turns)
    while turns and (turns[-1].role == USER or not turns[-1].text):
        turns.pop()
    if not turns:
        raise BadRecord(EMPTY_ANSWER if kept > 1 else NO_ANSWER)
    if len(turns) < kept:
        repairs[TRAILING] += 1
    return Conversation(id, tuple(map(_exchange, turns[::2], turns[1::2])), system or None)


def _exchange(asked: _Turn, answered: _Turn) -> Exchange:
    if not answered.text:
        raise BadRecord(EMPTY_ANSWER)
    if not asked.text and not asked.images:
        raise BadRecord(EMPTY_QUESTION)
    images = tuple(asked.images)
    return Exchange(asked.text, answered.text, images=images, weight=answered.weight)


def _merge(messages: Sequence[Message], image: Callable[[Any], ImageRef]) -> list[_Turn]:
    """One turn for neighbouring messages of a role."""
    turns: list[_Turn] = []
    for message in messages:
        if not turns or turns[-1].role != message.role:
            turns.append(_Turn(message.role, message.weight))
        elif message.role == ASSISTANT and turns[-1].weight != message.weight:
            raise BadRecord("answers in a row with different weights")
        if message.text:
            turns[-1].texts.append(message.text)
        for part in message.parts:
            if isinstance(part, ImagePart):
                if message.role != USER:
                    raise BadRecord(IMAGE_IN_ANSWER)
                turns[-1].images.append(image(part.source))
    return turns


def place_images(messages: Sequence[Message], listed: Sequence[Any]) -> list[Message]:
    """The messages, with each of the listed images where its marker stands.

    Raises:
        BadRecord: images and markers differ in number, or no question can show the images.
    """
    if not listed:
        if any(part == ImagePart() for message in messages for part in message.parts):
            raise BadRecord(MORE_MARKERS)
        return list(messages)
    slots = sum(part == ImagePart() for message in messages for part in message.parts)
    marked = slots
    if slots < len(listed):
        messages = [_unmark(message) for message in messages]
        marked = sum(part == ImagePart() for message in messages for part in message.parts)
    if not marked:
        return _before_first_question(messages, listed)
    if marked != len(listed):
        raise BadRecord(MORE_MARKERS if marked > len(listed) else "fewer image markers than images")
    waiting = iter(listed)
    return [
        replace(
            m, parts=tuple(ImagePart(next(waiting)) if p == ImagePart() else p for p in m.parts)
        )
        for m in messages
    ]


def _before_first_question(messages: Sequence[Message], listed: Sequence[Any]) -> list[Message]:
    found = list(messages)
    first = next((i for i, message in enumerate(found) if message.role == USER), None)
    if first is None:
        raise BadRecord(EMPTY_QUESTION)
    images = tuple(ImagePart(source) for source in listed)
    found[first] = replace(found[first], parts=(*images, *found[first].parts))
    return found


def _unmark(message: Message) -> Message:
    """Markers in the texts of a question become images, and leave no blank line behind."""
    if message.role != USER:
        return message
    parts: list[str | ImagePart] = []
    for part in message.parts:
        if isinstance(part, str):
            parts += [ImagePart()] * len(MARKER.findall(part))
            part = _SPACED_MARKER.sub(_gap, part)
        parts.append(part)
    return replace(message, parts=tuple(parts))


def _gap(marker: re.Match[str]) -> str:
    if marker.start() == 0 or marker.end() == len(marker.string):
        return ""
    return "\n" if "\n" in marker[0] else " "
