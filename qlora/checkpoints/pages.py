"""Memory-mapped weights without their pages piling up in memory.

Contract: reading tensors only brings pages of their files into memory, which the system would take
back under pressure but counts as ours until then. `release` hands them back at once, so that a walk
through a checkpoint needs the memory of one tensor. Knows Linux; does nothing elsewhere.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, dtype

from qlora.checkpoints.views import DerivedTensors, TensorSource

_MADV_DONTNEED = 4  # <asm-generic/mman-common.h>
_SMALL = 1 << 20  # bytes that are not worth asking the system about


def release(tensor: Tensor) -> None:
    """Hand back the pages of the file that `tensor` is a view of.

    The tensor stays usable: its pages are read again when they are touched. A tensor that is not a
    view of a file, not on the CPU, or small is left alone.
    """
    size = tensor.numel() * tensor.element_size()
    if not sys.platform.startswith("linux") or tensor.device.type != "cpu" or size < _SMALL:
        return
    start = tensor.data_ptr()
    end = start + size
    for low, high in _file_mappings():
        # Whole pages: a neighbour's share of the outer two is read again as well.
        first = max(low, start - start % mmap.PAGESIZE)
        last = min(high, end)
        if first < last:
            ctypes.CDLL(None).madvise(
                ctypes.c_void_p(first), ctypes.c_size_t(last - first), _MADV_DONTNEED
            )


class Walk(DerivedTensors):
    """The same tensors, for a reader that is done with one when it asks for the next.

    Each stays usable until it is dropped; only its pages go.
    """

    def __init__(self, weights: TensorSource) -> None:
        super().__init__(weights)
        self._last: Tensor | None = None

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.weights[name]
        if self._last is not None:
            release(self._last)
        self._last = tensor
        return tensor

    def dtype(self, name: str) -> dtype:
        return self.weights.dtype(name)


def _file_mappings() -> Iterator[tuple[int, int]]:
    """Address ranges of this process that are backed by files: proc_pid_maps(5), inode not 0.

    Anonymous memory must never get here: giving back its pages would erase it.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, inode, *_ = line.split(maxsplit=5)
        if inode != "0":
            low, _, high = addresses.partition("-")
            yield int(low, 16), int(high, 16)
