"""Arrays that a graph reads and writes in place, wherever it runs.

Contract: read and written from main memory too, by parts; zeros at first.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from lite.runtime.device import CPU

# Not to be shared with other processes.
PRIVATE = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)


class Buffer(Protocol):
    """An array where a graph runs, which it reads and writes in place.

    Attributes:
        value: to be bound.
        nbytes: of the whole.
    """

    value: ort.OrtValue
    nbytes: int

    def read(self) -> np.ndarray:
        """Its content, as a view or as a copy."""
        ...

    def write(self, part: tuple[Any, ...], content: np.ndarray) -> None:
        """Replace a part of it, given as numpy takes an index."""
        ...


class HostBuffer:
    """In main memory; the system backs only what is written of it."""

    def __init__(self, shape: Sequence[int], dtype: np.dtype) -> None:
        self._array = _lazy_zeros(shape, dtype)
        self.nbytes = self._array.nbytes
        # A binding does not keep the memory of a numpy array alive; `_array` does.
        self.value = ort.OrtValue.ortvalue_from_numpy(self._array)

    def read(self) -> np.ndarray:
        return self._array

    def write(self, part: tuple[Any, ...], content: np.ndarray) -> None:
        self._array[part] = content


class DeviceBuffer:
    """In a device's own memory; read and written as a whole, through main memory."""

    def __init__(self, shape: Sequence[int], dtype: np.dtype, device: str) -> None:
        self.value = ort.OrtValue.ortvalue_from_shape_and_type([*shape], dtype, device, 0)
        self.value.update_inplace(np.zeros(shape, dtype))
        self.nbytes = int(np.prod(shape)) * dtype.itemsize

    def read(self) -> np.ndarray:
        return self.value.numpy()

    def write(self, part: tuple[Any, ...], content: np.ndarray) -> None:
        array = np.array(self.value.numpy())
        array[part] = content
        self.value.update_inplace(array)


def _lazy_zeros(shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Zeros in small pages.

    numpy asks Linux for huge ones, of which a KV cache has one for 4096 positions of a head: its
    first token would take all of the memory, and the time to clear it (LLaMA-7B: 4 GB, 5 s).
    """
    if not hasattr(mmap, "MADV_NOHUGEPAGE"):
        return np.zeros(shape, dtype)
    pages = mmap.mmap(-1, int(np.prod(shape)) * dtype.itemsize, PRIVATE)
    pages.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(pages, dtype).reshape(shape)


def buffer(shape: Sequence[int], dtype: np.dtype, device: str) -> Buffer:
    """A buffer of zeros on a device."""
    return HostBuffer(shape, dtype) if device == CPU else DeviceBuffer(shape, dtype, device)
