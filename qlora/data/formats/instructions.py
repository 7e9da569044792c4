"""Readers of instructions, with images or without: Dolly and the Alpaca family."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from qlora.data.conversation import BadRecord, Conversation, Exchange
from qlora.data.formats.dialogue import USER, ImagePart, Message, place_images
from qlora.data.formats.image_keys import images_of
from qlora.data.formats.reader import Reader, question_and_answer, text
from qlora.data.formats.weights import record_weight

_NO_PAIRS = "history that is no list of pairs"


class _Instructions(Reader):
    """What both have in common: images belong to the questions."""

    def with_images(self, exchanges: Sequence[Exchange], listed: Sequence[Any]) -> list[Exchange]:
        """The exchanges with the record's images, each where its marker stands.

        Raises:
            BadRecord: images and markers differ in number, or an image is missing.
        """
        if not listed:
            return list(exchanges)
        texts = [part for one in exchanges for part in (one.question, one.context)]
        placed = place_images([Message(USER, (part,)) for part in texts], listed)
        found = []
        for one, asked, context in zip(exchanges, placed[::2], placed[1::2], strict=True):
            parts = (*asked.parts, *context.parts)
            images = tuple(self.image(p.source) for p in parts if isinstance(p, ImagePart))
            found.append(replace(one, question=asked.text, context=context.text, images=images))
        return found


class Dolly(_Instructions):
    """Databricks Dolly: `instruction`, `context` (may be empty), `response`."""

    name = "dolly"
    texts = frozenset(("instruction", "context", "response"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return record.keys() >= cls.texts

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        asked, answer = text(record, "instruction"), text(record, "response")
        exchange = _exchange(asked, answer, text(record, "context"), record_weight(record))
        return Conversation(id, tuple(self.with_images([exchange], images_of(record, self.texts))))


class Alpaca(_Instructions):
    """Alpaca: `instruction`, `input`, `output`; `system` and `history` as LLaMA-Factory has them.

    Old dumps write `<noinput>` or null for no input. Answers in the history are trained too.
    """

    name = "alpaca"
    texts = frozenset(("instruction", "input", "output", "system", "history", "text"))

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return {"instruction", "output"} <= record.keys()

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        context = text(record, "input")
        if context.lower() in ("<noinput>", "<no input>"):
            context = ""
        history = record.get("history") or ()
        if not isinstance(history, (list, tuple)):
            raise BadRecord(_NO_PAIRS)
        weight = record_weight(record)
        exchanges = [_earlier(pair, weight) for pair in history]
        asked, answer = text(record, "instruction"), text(record, "output")
        exchanges.append(_exchange(asked, answer, context, weight))
        shown = self.with_images(exchanges, images_of(record, self.texts))
        return Conversation(id, tuple(shown), text(record, "system") or None)


def _earlier(pair: Any, weight: float) -> Exchange:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        raise BadRecord(_NO_PAIRS)
    return _exchange(pair[0].strip(), pair[1].strip(), "", weight)


def _exchange(question: str, answer: str, context: str, weight: float) -> Exchange:
    asked = question_and_answer(question, answer)
    return Exchange(*asked, context=context, weight=weight)
