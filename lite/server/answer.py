"""One answer in a slot: images encoded, conversation rebuilt, the stream events of `Chat.ask`.

Contract: `start` and `next_event` block and belong into a worker thread; `close` returns the slot
whatever happened, and caches the answer's tokens so that the next turn can continue it.
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
from lite.server.answer_cache import AnswerCache
from lite.server.images import EncodedImage, Images, image_names
from lite.server.messages import Turn
from lite.server.pool import Pool, Slot
from lite.server.protocol import ChatRequest


@dataclass
class AnswerJob:
    """What a request asks for.

    Attributes:
        request: it.
        system: the opening line; None for the template's.
        turns: of the conversation; the last one has no answer.
        caller: whose caches it may use, see `Settings.isolate`.
        notes: sentences for the person.
        files: the image files of each turn.
    """

    request: ChatRequest
    system: str | None
    turns: list[Turn]
    caller: bytes = b""
    notes: list[str] = field(default_factory=list)
    files: list[list[bytes]] = field(default_factory=list)


class Answer:
    """The stream events of one answer.

    Attributes:
        timings: what it cost so far.
        images_cached: images of the conversation that did not have to be computed.
    """

    def __init__(self, job: AnswerJob, answers: AnswerCache, images: Images, pool: Pool) -> None:
        self._job = job
        self._answers = answers
        self._images = images
        self._pool = pool
        self._slot: Slot | None = None
        self._chat: Chat | None = None
        self._last: Exchange | None = None
        self._ready: list[StreamEvent] = []
        self._events: Generator[StreamEvent, Any, Any] = (event for event in self._ready)
        self.timings = Timings()
        self.images_cached = 0

    def start(self) -> None:
        """All work up to the first token of the answer.

        Raises:
            Refused: an image cannot be used.
            BadInput: as for `Chat.ask`.
        """
        job, question = self._job, self._job.turns[-1].question
        encoded, seconds, computed = self._encode_images()
        features = [[image.features for image in turn] for turn in encoded]
        past, self._key = self._answers.rebuild(job.system, job.turns, features, job.caller)
        self._last = past.exchanges[-1] if past.exchanges else None
        ids, images = _prompt(past, Exchange(question, features[-1]))
        self._slot = self._pool.take_slot(ids, images, job.caller)
        self._chat = Chat(past.engine, decoder=self._slot.decoder, conversation=past)
        asked = self._chat.ask(
            question,
            features[-1],
            max_tokens=job.request.limit,
            stop=job.request.stops,
            drop_turns=job.request.truncation == "auto",
            prefix=job.turns[-1].prefix,
            progress=_check_cancelled,
            **job.request.sampling,
        )
        self._events = cast("Generator[StreamEvent, Any, Any]", asked)
        notes = (*job.notes, *(note for image in encoded[-1] for note in image.notes))
        self._ready = [StreamEvent("", None, 0.0, self.timings, note) for note in notes]
        for event in self._events:
            self.timings = event.timings
            self._ready.append(event)
            if event.token is not None:
                break
        self.timings.image_seconds, self.timings.images_computed = seconds, computed
        self.images_cached = sum(map(len, encoded)) - computed

    def next_event(self) -> StreamEvent | None:
        """The next event; None after the last."""
        return self._ready.pop(0) if self._ready else next(self._events, None)

    def close(self) -> None:
        """End the answer; quick, and called when no thread is in it."""
        if self._slot is None:
            return
        try:
            self._events.close()
            exchanges = self._chat.exchanges if self._chat else []
            if exchanges and exchanges[-1] is not self._last:
                dropped = len(self._job.turns) - len(exchanges)
                self._answers.store(self._key, exchanges[-1], dropped)
        finally:
            self._pool.return_slot(self._slot, self.timings.prompt_tokens + self.timings.new_tokens)
            self._slot = None

    def _encode_images(self) -> tuple[list[list[EncodedImage]], float, int]:
        """All images of the conversation, the seconds that took, and how many were computed."""
        start, computed = time.perf_counter(), 0

        def computing() -> None:
            nonlocal computed
            _check_cancelled()
            computed += 1

        total = sum(map(len, self._job.files))
        names = iter(image_names(total))
        encoded = [
            [self._images.encode(file, next(names), computing, self._job.caller) for file in files]
            for files in self._job.files
        ]
        return encoded, time.perf_counter() - start, computed


def _prompt(past: Conversation, question: Exchange) -> Any:
    """Ids and images of a conversation with one more question, cut at the context's end."""
    past.exchanges.append(question)
    ids, images = past.prompt()
    past.exchanges.pop()
    return (ids, images) if len(ids) <= past.engine.context else (ids[:1], [])


def _check_cancelled(*progress: Any) -> None:
    from_thread.check_cancelled()
