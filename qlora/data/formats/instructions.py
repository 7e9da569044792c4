"""Readers of instructions without images: Dolly and the Alpaca family."""

from __future__ import annotations

import random
from typing import Any

from qlora.data.conversation import BadRecord, Conversation, Exchange
from qlora.data.formats.reader import Reader, question_and_answer, text

_NO_PAIRS = "history that is no list of pairs"


class Dolly(Reader):
    """Databricks Dolly: `instruction`, `context` (may be empty), `response`."""

    name = "dolly"

    @classmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        return {"instruction", "context", "response"} <= record.keys()

    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        asked = question_and_answer(text(record, "instruction"), text(record, "response"))
        return Conversation(id, (Exchange(*asked, context=text(record, "context")),))


class Alpaca(Reader):
    """Alpaca: `instruction`, `input`, `output`; `system` and `history` as LLaMA-Factory has them.

    Old dumps write `<noinput>` or null for no input. Answers in the history are trained too.
    """

    name = "alpaca"

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
        earlier = [_earlier(pair) for pair in history]
        asked = question_and_answer(text(record, "instruction"), text(record, "output"))
        exchanges = (*earlier, Exchange(*asked, context=context))
        return Conversation(id, exchanges, text(record, "system") or None)


def _earlier(pair: Any) -> Exchange:
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) for p in pair):
        raise BadRecord(_NO_PAIRS)
    return Exchange(*question_and_answer(pair[0].strip(), pair[1].strip()))
