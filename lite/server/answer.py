"""One answer in a slot: images looked at, conversation rebuilt, the pieces of `Chat.ask`.

Contract: `begin` and `step` block and belong into a worker thread; `close` gives the slot back
whatever happened, and remembers what was said so that the next turn can continue it.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, cast

from anyio import from_thread

from lite.chat.answer import StreamEvent, Timings
from lite.chat.chat import Chat
from lite.chat.conversation import Conversation, Exchange
from lite.server.history import History
from lite.server.images import Images, Look
from lite.server.messages import Turn
from lite.server.pool import Pool, Slot
from lite.server.protocol import ChatRequest


@dataclass
class Work:
    """What a request asks for: `files` are the encoded images of each turn."""

    request: ChatRequest
    system: str | None
    turns: list[Turn]
    files: list[list[bytes]] = field(default_factory=list)


class Answer:
    """The pieces of one answer.

    Attributes:
        timings: what it cost so far.
        images_cached: images of the conversation that did not have to be computed.
    """

    def __init__(self, work: Work, history: History, images: Images, pool: Pool) -> None:
        self._work = work
        self._history = history
        self._images = images
        self._pool = pool
        self._slot: Slot | None = None
        self._chat: Chat | None = None
        self._last: Exchange | None = None
        self._ready: list[StreamEvent] = []
        self._pieces: Generator[StreamEvent, Any, Any] = (piece for piece in self._ready)
        self.timings = Timings()
        self.images_cached = 0

    def begin(self) -> None:
        """All work up to the first token of the answer.

        Raises:
            Refused: an image cannot be used.
            BadInput: as for `Chat.ask`.
        """
        work, question = self._work, self._work.turns[-1].question
        looks, seconds, computed = self._look()
        memories = [[look.memory for look in turn] for turn in looks]
        past, self._key = self._history.rebuild(work.system, work.turns, memories)
        self._last = past.exchanges[-1] if past.exchanges else None
        self._slot = self._pool.take(*_prompt(past, Exchange(question, memories[-1])))
        self._chat = Chat(past.engine, past.system, self._slot.decoder)
        self._chat.exchanges = past.exchanges
        asked = self._chat.ask(
            question,
            memories[-1],
            max_tokens=work.request.limit,
            stop=work.request.stops,
            drop_turns=work.request.truncation == "auto",
            progress=_check_cancelled,
            **work.request.sampling,
        )
        self._pieces = cast("Generator[StreamEvent, Any, Any]", asked)
        notes = (note for look in looks[-1] for note in look.notes)
        self._ready = [StreamEvent("", None, 0.0, self.timings, note) for note in notes]
        for piece in self._pieces:
            self.timings = piece.timings
            self._ready.append(piece)
            if piece.token is not None:
                break
        self.timings.image_seconds, self.timings.images_computed = seconds, computed
        self.images_cached = sum(map(len, looks)) - computed

    def step(self) -> StreamEvent | None:
        """The next piece; None after the last."""
        return self._ready.pop(0) if self._ready else next(self._pieces, None)

    def close(self) -> None:
        """End the answer; quick, and called when no thread is in it."""
        if self._slot is None:
            return
        try:
            self._pieces.close()
            exchanges = self._chat.exchanges if self._chat else []
            if exchanges and exchanges[-1] is not self._last:
                dropped = len(self._work.turns) - len(exchanges)
                self._history.remember(self._key, exchanges[-1], dropped)
        finally:
            self._pool.give(self._slot, self.timings.prompt_tokens + self.timings.new_tokens)
            self._slot = None

    def _look(self) -> tuple[list[list[Look]], float, int]:
        """All images of the conversation, the seconds that took, and how many were computed."""
        start, computed = time.perf_counter(), 0

        def computing() -> None:
            nonlocal computed
            _check_cancelled()
            computed += 1

        looks = [[self._images.look(f, computing) for f in files] for files in self._work.files]
        return looks, time.perf_counter() - start, computed


def _prompt(past: Conversation, question: Exchange) -> Any:
    """Ids and images of a conversation with one more question, cut at the context's end."""
    past.exchanges.append(question)
    ids, images = past.prompt()
    past.exchanges.pop()
    return (ids, images) if len(ids) <= past.engine.context else (ids[:1], [])


def _check_cancelled(*progress: Any) -> None:
    from_thread.check_cancelled()
