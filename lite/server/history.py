"""A conversation that comes back as text, as the tokens that it was.

Contract: clients send the whole conversation with every request, answers as text. Text alone does
not tell the tokens an answer was generated as, nor which turns had been dropped to make room; both
are remembered under a hash of everything before the answer and the answer itself. What was
forgotten, or never said here, is encoded from its text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from lite.chat.conversation import Conversation, Exchange
from lite.chat.engine import Engine
from lite.runtime.vision import ImageFeatures
from lite.server.messages import Turn
from lite.server.recent import Recent

MEMORY_BYTES = 8 << 20
ENTRY_BYTES = 512  # what an entry takes beside its tokens


@dataclass(frozen=True)
class Remembered:
    """The tokens of an answer, and how many of its conversation's first turns were dropped."""

    answer_ids: array[int]
    dropped: int


class History:
    """Builds conversations, and remembers how their answers were made."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answers: Recent[Remembered] = Recent(MEMORY_BYTES)

    def rebuild(
        self, system: str | None, turns: Sequence[Turn], images: Sequence[list[ImageFeatures]]
    ) -> tuple[Conversation, bytes]:
        """The conversation before its last question, and the name of the answer to come.

        Args:
            system: the opening line; None for the template's.
            turns: all of them; the last one has no answer.
            images: the visual memories of each turn.
        """
        conversation = Conversation(self._engine, system)
        key = _link(b"", conversation.system)
        dropped = 0
        for turn, memories in zip(turns, images, strict=True):
            key = _link(key, turn.question, *(memory.key for memory in memories))
            if turn.answer is None:
                break
            key = answer_key(key, turn.answer)
            known = self._answers.get(key)
            ids = known.answer_ids if known else self._encode(turn.answer)
            dropped = known.dropped if known else dropped
            names = ["an image"] * len(memories)
            exchange = Exchange(turn.question, memories, names, turn.answer, [*ids])
            conversation.exchanges.append(exchange)
        for _ in range(dropped):
            conversation.drop_oldest()
        return conversation, key

    def remember(self, key: bytes, answer: Exchange, dropped: int) -> None:
        """Keep how the answer to the question named `key` was made."""
        ids = array("i", answer.answer_ids)
        weight = ENTRY_BYTES + ids.itemsize * len(ids)
        self._answers.put(answer_key(key, answer.answer), Remembered(ids, dropped), weight)

    def _encode(self, answer: str) -> list[int]:
        guarded = self._engine.template.guard(answer)
        lead = self._engine.template.lead
        return self._engine.tokenizer.encode([lead + guarded], begin=False)


def answer_key(question: bytes, answer: str) -> bytes:
    """The name of an answer to the question of that name."""
    return _link(question, answer)


def _link(key: bytes, *texts: str) -> bytes:
    """A name for all that has the name `key`, followed by `texts`."""
    sha = hashlib.sha256(key)
    for text in texts:
        data = text.encode()
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.digest()
