"""Conversations that come back as text, rebuilt with the tokens that were generated.

Contract: clients send the whole conversation with every request, answers as text. Text alone does
not tell the tokens of an answer, nor which turns had been dropped to make room; both are cached
under a hash of everything before the answer and the answer itself. What is not in the cache is
encoded from its text.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from lite.chat.conversation import Conversation, Exchange
from lite.chat.engine import Engine
from lite.recent import RecentlyUsed
from lite.runtime.vision import ImageFeatures
from lite.server.messages import Turn

CACHE_BYTES = 8 << 20
ENTRY_BYTES = 512  # what an entry takes beside its tokens


@dataclass(frozen=True)
class CachedAnswer:
    """The tokens of an answer, and how many of its conversation's first turns were dropped."""

    answer_ids: array[int]
    dropped: int


class AnswerCache:
    """Rebuilds conversations, and caches the tokens of their answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._answers: RecentlyUsed[bytes, CachedAnswer] = RecentlyUsed(CACHE_BYTES, _weight)

    def rebuild(
        self,
        system: str | None,
        turns: Sequence[Turn],
        images: Sequence[list[ImageFeatures]],
        caller: bytes = b"",
    ) -> tuple[Conversation, bytes]:
        """The conversation before its last question, and the key of the answer to come.

        Args:
            system: the opening line; None for the template's.
            turns: all of them; the last one has no answer.
            images: the image features of each turn.
            caller: whose conversation it is, see `Settings.isolate`.
        """
        conversation = Conversation(self._engine, system)
        key = _link(caller, conversation.system)
        dropped = 0
        for turn, features in zip(turns, images, strict=True):
            key = _link(key, turn.question, *(image.key for image in features))
            if turn.answer is None:
                break
            key = answer_key(key, turn.answer)
            cached = self._answers.get(key)
            ids = cached.answer_ids if cached else self._encode(turn.answer)
            dropped = cached.dropped if cached else dropped
            names = ["an image"] * len(features)
            exchange = Exchange(turn.question, features, names, turn.answer, [*ids])
            conversation.exchanges.append(exchange)
        for _ in range(dropped):
            conversation.drop_oldest()
        return conversation, key

    def store(self, key: bytes, answer: Exchange, dropped: int) -> None:
        """Keep the tokens of the answer to the question with that key."""
        ids = array("i", answer.answer_ids)
        self._answers.put(answer_key(key, answer.answer), CachedAnswer(ids, dropped))

    def _encode(self, answer: str) -> list[int]:
        template = self._engine.template
        text = template.answer_prefix + template.escape(answer)
        return self._engine.tokenizer.encode([text], begin=False)


def answer_key(question: bytes, answer: str) -> bytes:
    """The key of an answer to the question with that key."""
    return _link(question, answer)


def _weight(answer: CachedAnswer) -> int:
    """Bytes that an entry takes."""
    ids = answer.answer_ids
    return ENTRY_BYTES + ids.itemsize * len(ids)


def _link(key: bytes, *texts: str) -> bytes:
    """The key of what has the key `key`, followed by `texts`."""
    sha = hashlib.sha256(key)
    for text in texts:
        data = text.encode()
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.digest()
