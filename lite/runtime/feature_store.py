"""What was computed of images, kept on disk by key: of a chat's pictures, and of training data.

Contract: what comes back is bit for bit what was kept, or it is not there. The store may vanish at
any time, and a folder that cannot be written makes every `put` do nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from lite.files import replacing

_DIGEST = hashlib.sha256().digest_size


class FeatureStore:
    """Arrays of one shape and type in files of their own: 32 bytes of SHA-256, then the values.

    The files tell which pictures a person used, so only that person may read them.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        dtype: DTypeLike = "<f4",
        limit: int | None = None,
    ) -> None:
        """
        Args:
            folder: of the files; made when the first one is kept.
            shape, dtype: of all arrays.
            limit: bytes, beyond which the least recently used files go; None for no limit.
        """
        self._folder, self._shape, self._dtype = folder, shape, np.dtype(dtype)
        self._limit = limit

    def __contains__(self, key: str) -> bool:
        """Whether there is a file; `get` may still find that it is damaged."""
        return self._path(key).exists()

    def get(self, key: str) -> np.ndarray | None:
        """The array, read-only; None where it is not there, or its file was cut or altered."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:
            return None
        if self._limit is not None:
            with contextlib.suppress(OSError):  # a folder that is read-only serves all the same
                os.utime(path)  # makes it the most recently used
        digest, values = content[:_DIGEST], content[_DIGEST:]
        size = self._dtype.itemsize * int(np.prod(self._shape))
        if len(values) != size or hashlib.sha256(values).digest() != digest:
            return None
        return np.frombuffer(values, self._dtype).reshape(self._shape)

    def put(self, key: str, array: np.ndarray) -> None:
        """Keep an array; does nothing where the disk is full or must not be written to."""
        values = array.astype(self._dtype).tobytes()
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with replacing(self._path(key), private=True) as partial:
                partial.write_bytes(hashlib.sha256(values).digest() + values)
            self._trim()

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.{self._dtype.kind}{8 * self._dtype.itemsize}"

    def _trim(self) -> None:
        """Remove the least recently used files beyond the limit."""
        if self._limit is None:
            return
        files = sorted(
            ((path.stat(), path) for path in self._folder.iterdir()),
            key=lambda entry: entry[0].st_mtime_ns,
            reverse=True,
        )
        total = 0
        for stat, path in files:
            total += stat.st_size
            if total > self._limit:
                path.unlink(missing_ok=True)
