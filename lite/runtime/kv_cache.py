"""The KV cache: the keys and values of a sequence, and what each position of it stands for.

Contract: knows ids, keys of image features and arrays; runs nothing. A position counts as equal
when its token, the image it attends to, and whether the gated blocks ran are all equal. The buffers
may hold more than the cache vouches for: only its first `len(ids)` positions mean anything.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from lite.bundle.manifest import Sizes
from lite.runtime.buffers import buffer
from lite.runtime.device import CPU

# What a position attended to, where that was no image with a number from 1.
NO_IMAGE = 0  # the gated blocks ran, without an image for this token
TEXT_ONLY = -1  # a conversation without images: the gated blocks were skipped

# Images with a number; beyond them, those that the cache does not hold are forgotten.
MAX_NUMBERS = 1024


@dataclass(frozen=True)
class CacheState:
    """The content of a KV cache by itself, as a file can keep it.

    Attributes:
        ids: the token of each position, int64 `[positions]`.
        keys: keys of the image features that were attended to.
        attended: what each position attended to, int64 `[positions]`: j is the image
            `keys[j - 1]`, others are `NO_IMAGE` and `TEXT_ONLY`.
        layers: for each layer keys at 0 and values at 1, `[2, kv_heads, positions, head_dim]` of
            the cache's `dtype`. Made one at a time, so that no second copy of
            the whole exists; to be read once, and before the decoder runs again.
    """

    ids: np.ndarray
    keys: list[str]
    attended: np.ndarray
    layers: Iterable[np.ndarray]


class KVCache:
    """Buffers that the decoder graph reads and writes in place.

    Attributes:
        ids: tokens of the positions that are right, int64 `[positions]`.
        attended_images: what they attended to, int64 `[positions]`, in the numbers of
            `attended_images_of`.
        dtype: of the buffers: float32, float16 or int8.
    """

    def __init__(
        self, sizes: Sizes, dtype: type = np.float32, skips: bool = True, device: str = CPU
    ) -> None:
        """
        Args:
            sizes: of the model.
            dtype: of the buffers.
            skips: it has blocks that are skipped in a conversation without images.
            device: where the graph runs.
        """
        self._sizes, self._skips = sizes, skips
        self.dtype = np.dtype(dtype)
        self._numbers: dict[str, int] = {}  # key of features -> number in attended_images
        self._unused = itertools.count(NO_IMAGE + 1)
        shape = (1, sizes.kv_heads, sizes.context, sizes.head_dim)
        self._buffers = [buffer(shape, self.dtype, device) for _ in range(2 * sizes.layers)]
        self.forget()

    @property
    def bytes_per_position(self) -> int:
        """Bytes that one token takes in all layers."""
        return sum(one.nbytes for one in self._buffers) // self._sizes.context

    def bind(self, binding: ort.IOBinding) -> None:
        """Make each buffer both past and present of a run, so that nothing is copied."""
        for i, one in enumerate(self._buffers):
            name = f"{i // 2}.{('key', 'value')[i % 2]}"
            binding.bind_ortvalue_input(f"past.{name}", one.value)
            binding.bind_ortvalue_output(f"present.{name}", one.value)

    def hold(self, ids: np.ndarray, attended_images: np.ndarray) -> None:
        """From now on the first positions stand for these tokens, the others for nothing."""
        self.ids, self.attended_images = ids, attended_images

    def forget(self) -> None:
        """From now on no position stands for anything."""
        self.hold(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    def attended_images_of(self, index: np.ndarray, keys: Sequence[str]) -> np.ndarray:
        """What each token attends to, in numbers that mean the same from one call to the next.

        Args:
            index: from `lite.bundle.injection.Injection.attended_images`, `[T]`.
            keys: of the image features that it numbers from 1.
        """
        if not keys:
            alone = TEXT_ONLY if self._skips else NO_IMAGE
            return np.full(index.shape, alone, dtype=np.int64)
        if len(self._numbers) > MAX_NUMBERS:
            held = {*self.attended_images.tolist()}
            self._numbers = {key: n for key, n in self._numbers.items() if n in held}
        return np.array([NO_IMAGE, *self._numbers_of(keys)])[index]

    def reusable(self, ids: np.ndarray, attended_images: np.ndarray) -> int:
        """How many leading positions are right for this sequence."""
        n = min(len(ids), len(self.ids))
        same = (ids[:n] == self.ids[:n]) & (attended_images[:n] == self.attended_images[:n])
        return n if same.all() else int(same.argmin())

    def export(self, positions: int) -> CacheState:
        """The first positions."""
        attended_images = self.attended_images[:positions]
        numbers = sorted({int(n) for n in attended_images if n > NO_IMAGE})
        names = {number: key for key, number in self._numbers.items()}
        renumbered = np.searchsorted([NO_IMAGE, *numbers], attended_images)
        return CacheState(
            ids=self.ids[:positions],
            keys=[names[number] for number in numbers],
            attended=np.where(attended_images == TEXT_ONLY, TEXT_ONLY, renumbered),
            layers=self._layers(positions),
        )

    def import_(self, state: CacheState, ids: np.ndarray, attended_images: np.ndarray) -> None:
        """Take over what another cache exported of this sequence.

        Raises:
            ValueError: the state is of another sequence or does not fit the model. The cache is
                then empty, or as it was.
        """
        n = len(state.ids)
        known = (state.attended >= TEXT_ONLY) & (state.attended <= len(state.keys))
        if state.attended.shape != (n,) or not known.all():
            raise ValueError("a position of the KV cache attends to an image that is not there")
        attended = np.array([NO_IMAGE, *self._numbers_of(state.keys), TEXT_ONLY])[state.attended]
        if not np.array_equal(state.ids, ids[:n]) or not np.array_equal(
            attended, attended_images[:n]
        ):
            raise ValueError("the KV cache is of another conversation")
        self.hold(ids[:0], attended_images[:0])  # the buffers are about to change
        for i, layer in zip(range(self._sizes.layers), state.layers, strict=True):
            self._write(i, n, layer)
        self.hold(ids[:n], attended_images[:n])

    def _write(self, layer: int, n: int, content: np.ndarray) -> None:
        shape = (2, self._sizes.kv_heads, n, self._sizes.head_dim)
        if content.shape != shape or content.dtype != self.dtype:
            found = f"{content.dtype} {list(content.shape)}"
            raise ValueError(f"layer {layer} of the KV cache is {found}, not {list(shape)}")
        for part in (0, 1):
            self._buffers[2 * layer + part].write(np.s_[0, :, :n], content[part])

    def _layers(self, positions: int) -> Iterator[np.ndarray]:
        for i in range(0, len(self._buffers), 2):
            yield np.stack([one.read()[0, :, :positions] for one in self._buffers[i : i + 2]])

    def _numbers_of(self, keys: Sequence[str]) -> list[int]:
        return [self._numbers.setdefault(key, next(self._unused)) for key in keys]
