"""The most recently used things, up to a total weight.

Contract: bounded, safe for any number of threads; a miss is always possible.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from cachetools import LRUCache

Key = TypeVar("Key")
Value = TypeVar("Value")


class RecentlyUsed(Generic[Key, Value]):
    """A mapping that forgets what was not used for longest."""

    def __init__(self, limit: int, weigh: Callable[[Value], int]) -> None:
        """
        Args:
            limit: of the sum of all weights that are kept; a single thing may be heavier.
            weigh: the weight of a value, which must stay the same.
        """
        self._kept: LRUCache[Key, Value] = LRUCache(limit, lambda value: min(weigh(value), limit))
        self._lock = threading.Lock()

    def get(self, key: Key) -> Value | None:
        """The value, which now is the most recently used; None where it is not kept."""
        with self._lock:
            return self._kept.get(key)

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, instead of what was kept under its key."""
        with self._lock:
            self._kept[key] = value
