"""Tensors of a checkpoint under the names of a torch module, checked against its shapes.

Contract: no reader states a shape that the module can tell: what a checkpoint must hold follows
from the module on the meta device, and from how the checkpoint spells and keeps each parameter. As
with every `TensorSource`, nothing is read before a tensor is asked for, and nothing is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from qlora.checkpoints.checks import check_tensors
from qlora.checkpoints.sources import TensorSource, merged, renamed
from qlora.checkpoints.views import DerivedTensors


@dataclass(frozen=True)
class Joined:
    """How a checkpoint keeps a parameter that is not one tensor of the same shape there.

    Attributes:
        parts: names of the checkpoint's tensors, each an equal share of the parameter's rows.
        leading: axes of length 1 that each of them has in front.
        make: from their tensors to the parameter; by default they stand one below the other.
    """

    parts: tuple[str, ...]
    leading: int = 0
    make: Callable[..., Tensor] | None = None

    def part_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each part of a parameter of that shape."""
        return (*[1] * self.leading, shape[0] // len(self.parts), *shape[1:])

    def recipe(self, shape: tuple[int, ...]) -> Computed:
        """How the parameter of that shape is made."""
        if len(self.parts) == 1:
            return Computed(self.parts, shape, self.make)
        return Computed(self.parts, shape, self.make or (lambda *parts: torch.cat(parts)))


def shapes_of(build: Callable[[], nn.Module], prefix: str = "") -> dict[str, tuple[int, ...]]:
    """Name and shape of each parameter of the module that `build` makes; takes no memory.

    Args:
        build: is called under the meta device.
        prefix: put before every name.
    """
    with torch.device("meta"):
        module = build()
    return {prefix + name: tuple(value.shape) for name, value in module.named_parameters()}


def translated(
    source: TensorSource,
    shapes: Mapping[str, tuple[int, ...]],
    theirs: Callable[[str], str | Joined],
    path: Path,
    what: str,
) -> Translated:
    """The parameters of a module from a checkpoint that spells them in its own way.

    Args:
        source: the checkpoint's tensors of this module, and no others.
        shapes: of the module's parameters, see `shapes_of`.
        theirs: from a parameter's name to how the checkpoint keeps it.
        path: of the checkpoint, for messages.
        what: kind of the checkpoint, for messages.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape; named as in the checkpoint.
    """
    expected: dict[str, tuple[int, ...]] = {}
    straight: dict[str, str] = {}
    recipes: dict[str, Computed] = {}
    for name, shape in shapes.items():
        kept = theirs(name)
        if isinstance(kept, str):
            straight[name] = kept
            expected[kept] = shape
        else:
            recipes[name] = kept.recipe(shape)
            expected |= dict.fromkeys(kept.parts, kept.part_shape(shape))
    check_tensors(source, expected, path, what)
    whole = merged(renamed(source, straight), ComputedTensors(source, recipes))
    return Translated(whole, {name: theirs(name) for name in shapes})


class Translated(DerivedTensors):
    """The parameters of a module, and how the checkpoint keeps each of them."""

    def __init__(self, weights: TensorSource, kept: Mapping[str, str | Joined]) -> None:
        super().__init__(weights)
        self.kept = dict(kept)

    def __getitem__(self, name: str) -> Tensor:
        return self.weights[name]

    def dtype(self, name: str) -> torch.dtype:
        return self.weights.dtype(name)


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
