"""Decoders of one model: one for each answer that is generated at the same time.

Contract: a decoder is used by one answer at a time, whichever thread it runs in, so answers of
several threads never mix. Answers one after the other share the first decoder and its KV cache; a
further decoder is made, on the same weights, only when all are in use.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lite.runtime.decoder import Decoder
from lite.runtime.vision import ImageFeatures


class DecoderPool:
    """Lends decoders."""

    def __init__(self, first: Callable[[], Decoder]) -> None:
        """`first` opens the first decoder; it is called once, at the first use."""
        self._first = first
        self._free: list[Decoder] | None = None
        self._lock = threading.Lock()

    @contextmanager
    def lend(self, ids: Sequence[int], images: Sequence[ImageFeatures]) -> Iterator[Decoder]:
        """A decoder that nobody else uses meanwhile: the one that holds most of this sequence,
        which may be empty.

        Raises:
            BadInput: as for `Decoder.reusable`.
        """

        def held(decoder: Decoder) -> int:
            return decoder.reusable(ids, images) if len(ids) else 0

        with self._lock:
            if self._free is None:
                self._free = [self._first()]
            free = self._free
            chosen = max(free, key=held, default=None)
            if chosen is None:
                chosen = self._first().fork()
            else:
                free.remove(chosen)
        try:
            yield chosen
        finally:
            with self._lock:
                free.append(chosen)
