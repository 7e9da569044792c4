"""Tensors that are put together of others when asked for: joined, permuted, reshaped.

Contract: as every `TensorSource`, nothing is read before a tensor is asked for, and nothing kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from qlora.checkpoints.views import TensorSource


@dataclass(frozen=True)
class Computed:
    """How one tensor is made.

    Attributes:
        parts: names of what it is made of.
        shape: of what comes out.
        make: from the parts' tensors to the tensor; by default the only part in that shape.
    """

    parts: tuple[str, ...]
    shape: tuple[int, ...]
    make: Callable[..., Tensor] | None = None


class ComputedTensors(TensorSource):
    """Tensors by recipe; all parts are in one source."""

    def __init__(self, source: TensorSource, recipes: Mapping[str, Computed]) -> None:
        self._source, self._recipes = source, dict(recipes)

    def __getitem__(self, name: str) -> Tensor:
        recipe = self._recipes[name]
        parts = [self._source[part] for part in recipe.parts]
        made = recipe.make(*parts) if recipe.make else parts[0].reshape(recipe.shape)
        assert tuple(made.shape) == recipe.shape
        return made

    def __iter__(self) -> Iterator[str]:
        return iter(self._recipes)

    def __len__(self) -> int:
        return len(self._recipes)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._recipes[name].shape

    def where(self, name: str) -> Path:
        return self._source.where(self._recipes[name].parts[0])

    def dtype(self, name: str) -> torch.dtype:
        return self._source.dtype(self._recipes[name].parts[0])
