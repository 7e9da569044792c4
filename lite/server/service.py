"""From a request to its answer: images, a turn, a slot.

Contract: the event loop only waits; whatever computes runs in worker threads, one stream event at a
time. So a slow reader slows down its own answer, and one that has gone stops it after the token, or
the part of the prompt, that is being computed.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread

from lite.chat.model import Model
from lite.errors import TooLong
from lite.image.loading import Picture
from lite.server.answer import Answer, AnswerJob
from lite.server.answer_cache import AnswerCache
from lite.server.errors import Refused
from lite.server.fetcher import Fetcher
from lite.server.images import Images, image_names
from lite.server.messages import DESCRIBE, conversation_turns
from lite.server.pool import Pool
from lite.server.protocol import parse_request
from lite.server.settings import Settings

READERS = 4  # images of waiting requests that are fetched or decoded at a time
PARSERS = 2  # request bodies that are parsed at a time
DROPPED_CONTEXTS = 8  # contexts of text that a conversation may have whose old turns are dropped

Result = TypeVar("Result")


class Service:
    """The model with its slots and its caches."""

    def __init__(self, model: Model, settings: Settings) -> None:
        """
        Raises:
            BadInput: the bundle is broken; it shows here and not at the first request.
            LiteError: the vision graph does not run.
        """
        self.pool = Pool(model.decoder, settings.parallel, settings.queue)
        self.context = model.context
        self._answers = AnswerCache(model)
        self._images = Images(model.vision, Fetcher(settings.image_hosts).fetch)
        self._settings = settings
        self._readers = CapacityLimiter(READERS)
        self._parsers = CapacityLimiter(PARSERS)
        self._workers = CapacityLimiter(settings.parallel)
        self._longest_token = _longest_token(model)
        model.vision.compute(Picture(np.zeros((8, 8, 3), np.uint8)))

    async def parse(self, body: bytes, key: str) -> AnswerJob:
        """What a request asks for; `key` is the bearer key that came with it.

        Raises:
            Refused: it cannot be honoured.
        """
        return await to_thread.run_sync(self._parse, body, key, limiter=self._parsers)

    def _parse(self, body: bytes, key: str) -> AnswerJob:
        request = parse_request(body)
        most = self._settings.max_messages
        if len(request.messages) > most:
            raise Refused(
                400,
                f"The conversation has {len(request.messages)} messages but this server takes "
                f"{most}; leave out the oldest.",
                "messages",
                "too_many_messages",
            )
        caller = (key if self._settings.isolate else "", request.cache_salt or "")
        job = AnswerJob(request, *conversation_turns(request.messages))
        if any(caller):
            job.caller = hashlib.sha256(repr(caller).encode()).digest()
        if request.tools:
            job.notes.append("This model calls no tools; it answers in words.")
        if job.turns[-1].described:
            job.notes.append(f"The image came without words; the question was: {DESCRIBE}")
        self._check_images(job)
        self._check_length(job)
        return job

    @asynccontextmanager
    async def answer(self, job: AnswerJob) -> AsyncIterator[Answer]:
        """An answer whose first token is there, for one that has a place in the pool.

        Leaving the context ends it.

        Raises:
            Refused: the request cannot be answered now, or not at all.
            LiteError: as for `Chat.ask`.
        """
        names = iter(image_names(sum(len(turn.images) for turn in job.turns)))
        for turn in job.turns:
            job.files.append([await self._read(url, next(names)) for url in turn.images])
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

    async def _read(self, url: str, name: str) -> bytes:
        return await to_thread.run_sync(self._images.read, url, name, limiter=self._readers)

    def _check_images(self, job: AnswerJob) -> None:
        images = sum(len(turn.images) for turn in job.turns)
        most = self._settings.max_images
        if images > most:
            raise Refused(
                400,
                f"The conversation holds {images} images but this server takes {most}; leave some "
                f"out.",
                "messages",
                "too_many_images",
            )

    def _check_length(self, job: AnswerJob) -> None:
        """Refuse by its length alone what cannot fit: tokenizing megabytes takes minutes.

        Old turns may be dropped where the client wants that, so only their sum with what stays is
        bounded, loosely.
        """
        longest = self.context * self._longest_token
        texts = [
            len(turn.question) + len(turn.answer or "") + len(turn.prefix) for turn in job.turns
        ]
        kept = len(job.system or "") + texts[-1]
        drops = job.request.truncation == "auto"
        if kept > longest or sum(texts) > longest * (DROPPED_CONTEXTS if drops else 1):
            characters = len(job.system or "") + sum(texts)
            raise TooLong(
                f"The prompt has {characters} characters, and no token has more than "
                f"{self._longest_token}; shorten it."
            )


def _longest_token(model: Model) -> int:
    """Characters of the longest token."""
    tokens = range(model.bundle.manifest.sizes.vocab)
    return max(len(model.tokenizer.token_bytes(token)) for token in tokens)
