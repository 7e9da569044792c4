"""From a request to its answer: images, a turn, a slot.

Contract: the event loop only waits; whatever computes runs in worker threads, one stream event at a
time. So a slow reader slows down its own answer, and one that has gone stops it after the token, or
the part of the prompt, that is being computed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

from lite.chat.model import Model
from lite.server.answer import Answer, AnswerJob
from lite.server.answer_cache import AnswerCache
from lite.server.errors import Refused
from lite.server.fetcher import Fetcher
from lite.server.images import Images
from lite.server.messages import conversation_turns
from lite.server.pool import Pool
from lite.server.protocol import ChatRequest
from lite.server.settings import Settings

READERS = 4  # images of waiting requests that are fetched or decoded at a time

Result = TypeVar("Result")


class Service:
    """The model with its slots and its caches."""

    def __init__(self, model: Model, settings: Settings) -> None:
        self.pool = Pool(model.decoder, settings.parallel, settings.queue)
        self._answers = AnswerCache(model)
        self._images = Images(model.vision, Fetcher(settings.image_hosts).fetch)
        self._max_images = settings.max_images
        self._readers = CapacityLimiter(READERS)
        self._workers = CapacityLimiter(settings.parallel)

    @asynccontextmanager
    async def answer(self, request: ChatRequest) -> AsyncIterator[Answer]:
        """An answer whose first token is there, for one that has a place in the pool.

        Leaving the context ends it.

        Raises:
            Refused: the request cannot be answered now, or not at all.
            LiteError: as for `Chat.ask`.
        """
        job = AnswerJob(request, *conversation_turns(request.messages))
        self._check_images(job)
        for turn in job.turns:
            job.files.append([await self._read(url) for url in turn.images])
        async with self.pool.wait_turn():
            answer = Answer(job, self._answers, self._images, self.pool)
            try:
                await self.compute(answer.start)
                yield answer
            finally:
                answer.close()

    async def compute(self, work: Callable[[], Result]) -> Result:
        """Run in a worker thread; a cancelled request waits until the thread has noticed."""
        return await to_thread.run_sync(work, limiter=self._workers)

    async def _read(self, url: str) -> bytes:
        return await to_thread.run_sync(self._images.read, url, limiter=self._readers)

    def _check_images(self, job: AnswerJob) -> None:
        images = sum(len(turn.images) for turn in job.turns)
        if images > self._max_images:
            raise Refused(
                400,
                f"The conversation holds {images} images but this server takes {self._max_images}; "
                f"leave some out.",
                "messages",
                "too_many_images",
            )
