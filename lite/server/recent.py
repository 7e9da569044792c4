"""The most recently used things, up to a weight.

Contract: bounded, safe for any number of threads; a miss is always possible.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """A mapping that forgets what was not used for longest."""

    def __init__(self, limit: int) -> None:
        """`limit` is the sum of all weights that are kept, in the unit of `put`'s weights."""
        self._limit = limit
        self._total = 0
        self._entries: OrderedDict[bytes, tuple[Value, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: bytes) -> Value | None:
        with self._lock:
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def put(self, key: bytes, value: Value, weight: int) -> None:
        with self._lock:
            self._total += weight - self._entries.pop(key, (value, 0))[1]
            self._entries[key] = (value, weight)
            while self._total > self._limit:
                self._total -= self._entries.popitem(last=False)[1][1]
