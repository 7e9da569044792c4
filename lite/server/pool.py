"""N sequences at a time on one model, a bounded queue before them, and the best KV cache for each.

Contract: `admit` counts a request in or refuses it, `wait_turn` waits until one of the N is free,
`take_slot` hands out a free slot to a request that holds a turn. Nothing here runs the model.
"""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio

from lite.runtime.decoder import Decoder
from lite.runtime.vision import ImageFeatures
from lite.server.connection import RETRY_SECONDS
from lite.server.errors import Refused


@dataclass(eq=False)
class Slot:
    """A KV cache with what is known about it.

    Attributes:
        decoder: that owns it.
        held: tokens in it.
        caller: whose tokens they are; see `Settings.isolate`.
        used: when it was last given back, as a count; 0 for never.
    """

    decoder: Decoder
    held: int = 0
    used: int = 0
    caller: bytes = b""


class Pool:
    """Slots and the queue before them."""

    def __init__(self, decoder: Decoder, parallel: int, queue: int) -> None:
        """
        Args:
            decoder: to fork.
            parallel: sequences at a time.
            queue: requests that may wait beyond them.
        """
        self._decoder = decoder
        self._free = [Slot(decoder.fork()) for _ in range(parallel)]
        self._lock = threading.Lock()
        self._turns = anyio.Semaphore(parallel)
        self.capacity = parallel + queue
        self.parallel = parallel
        self._clock = 0
        self.present = 0  # requests that wait or run
        self.active = 0  # requests that run
        self.stopping = False

    def check_room(self) -> None:
        """Refuse a request that could not be admitted now.

        Raises:
            Refused: the queue is full, or the server is stopping.
        """
        self._check_open()
        if self.present >= self.capacity:
            message = "The server is busy and its queue is full; try again in a moment."
            retry = {"Retry-After": str(RETRY_SECONDS)}
            raise Refused(429, message, code="queue_full", headers=retry)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count the request as present.

        Raises:
            Refused: as `check_room`.
        """
        self.check_room()
        self.present += 1
        try:
            yield
        finally:
            self.present -= 1

    @asynccontextmanager
    async def wait_turn(self) -> AsyncIterator[None]:
        """Wait, first come first served, until fewer than N run.

        Raises:
            Refused: the server began to stop in the meantime.
        """
        async with self._turns:
            self._check_open()
            self.active += 1
            try:
                yield
            finally:
                self.active -= 1

    def take_slot(
        self, ids: Sequence[int], images: Sequence[ImageFeatures], caller: bytes = b""
    ) -> Slot:
        """The free slot whose cache serves this prompt best; return it with `return_slot`.

        That is the longest reusable prefix, if most of the cache is reused; otherwise the slot that
        was not used for longest, so that other conversations keep theirs. What another caller left
        in a cache is never reused.
        """
        with self._lock:
            best, reused = self._free[0], -1
            for slot in self._free:
                if slot.caller != caller:
                    continue
                same = slot.decoder.reusable(ids, images)
                if 2 * same > slot.held and same > reused:
                    best, reused = slot, same
            if reused <= 0:
                best = min(self._free, key=lambda slot: slot.used)
            self._free.remove(best)
            if best.caller != caller:
                return Slot(self._decoder.fork(), caller=caller)
            return best

    def return_slot(self, slot: Slot, held: int) -> None:
        """Put a slot back that now holds that many tokens."""
        with self._lock:
            self._clock += 1
            slot.held, slot.used = held, self._clock
            self._free.append(slot)

    def _check_open(self) -> None:
        if self.stopping:
            raise Refused(503, "The server is stopping; send the request to another.")
