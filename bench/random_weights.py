"""Models of real sizes with random weights, for benchmarks that must not need a download.

Contract: a `ModelWeights` whose tensors are made when they are asked for, one at a time, and are
the same for the same seed. Nothing is kept but a pool of random numbers, so that a walk through a
9B model needs the memory of one tensor, as a walk through checkpoint files does.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import BPE
from torch import Tensor

from bench.shapes import config_of
from qlora.checkpoints.sources import TensorSource
from qlora.checkpoints.tokenizer_files import TokenizerFiles
from qlora.families.flamingo import ADDED_TOKENS
from qlora.model import VisionLanguageModel
from qlora.model.weights import ModelWeights

# Values in the pool: more than the largest norm or embedding row repeats in, and odd, so that the
# rows of a matrix that is longer than the pool are not copies of each other.
_POOL = (1 << 22) + 1


class RandomTensors(TensorSource):
    """Tensors of given shapes: matrices keep the size of what they multiply, gains are around 1."""

    def __init__(self, shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> None:
        """
        Args:
            shapes: by name, in the order of the walk.
            seed: of the values.
            dtype: of all tensors.
        """
        self._shapes, self._dtype = shapes, dtype
        self._pool = torch.randn(_POOL, generator=torch.Generator().manual_seed(seed))

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        offset = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") % _POOL
        values = math.prod(shape)
        center, scale = _moments(name, shape)
        made = torch.empty(values, dtype=self._dtype)
        for start in range(0, values, _POOL):
            part = self._pool.roll(-offset)[: values - start]
            made[start : start + part.numel()] = part * scale + center
        return made.view(shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def dtype(self, name: str) -> torch.dtype:
        self._shapes[name]
        return self._dtype

    def where(self, name: str) -> Path:
        self._shapes[name]
        return Path("random weights")


def _moments(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Mean and standard deviation of a tensor's values."""
    if name.endswith("_gate"):  # OpenFlamingo's gates start at 0, trained ones are not
        return 0.5, 0.1
    if len(shape) > 1:
        return 0.0, shape[-1] ** -0.5
    return (1.0, 0.1) if name.endswith("weight") else (0.0, 0.1)


def random_weights(shape: str, seed: int = 0, dtype: torch.dtype = torch.float16) -> ModelWeights:
    """The weights of a model of one of `SHAPES`.

    Args:
        shape: its name.
        seed: of the values.
        dtype: as stored; published LLaMA checkpoints are float16.
    """
    config = config_of(shape)
    vocabulary = config.llama.vocab_size
    special = {token: vocabulary + i for i, token in enumerate(ADDED_TOKENS)}
    model = VisionLanguageModel(config, special["<image>"])
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    tensors = RandomTensors(shapes, seed, dtype)
    return ModelWeights(
        config=config,
        base=tensors,
        tensors=tensors,
        lora=None,
        tokenizer=TokenizerFiles(Tokenizer(BPE()), bos=1, eos=2, pad=None, unk=0, size=vocabulary),
        special_ids=special,
        llama_folder=Path("random weights"),
    )
