"""A checkpoint as a read-only mapping from tensor names to tensors that are read when asked for.

Contract: a `TensorSource` knows the name, shape and file of every tensor without reading any data.
`source[name]` reads one tensor; nothing is kept, so a 33 GB model can be walked through tensor by
tensor. Views (`renamed`, `merged`) read nothing.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lite.errors import BadInput


class TensorSource(Mapping[str, torch.Tensor]):
    """Lazy mapping: `source[name]` is a CPU tensor in its stored dtype.

    A tensor may be a view of the memory-mapped file: copy it before changing it in place.
    Subclasses give `__getitem__`, `__iter__`, `__len__`, `shape` and `where`.

    Example:
        source = open_tensors(Path("model.safetensors"))
        source.shape("lm_head.weight")  # (32000, 4096), from the header
        source["lm_head.weight"]  # the tensor itself
    """

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, without reading it. Raises KeyError."""

    @abstractmethod
    def where(self, name: str) -> Path:
        """The file that the tensor comes from, for messages. Raises KeyError."""

    def dtype(self, name: str) -> torch.dtype:
        """The tensor's dtype; only sources that compute their tensors read it. Raises KeyError."""
        return self[name].dtype

    def __contains__(self, name: object) -> bool:
        # Mapping's own version would read the tensor.
        try:
            self.shape(name)  # type: ignore[arg-type]
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} tensors)"


@dataclass(frozen=True)
class TensorEntry:
    """What a file's header says of one tensor, and how to read it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    where: Path
    load: Callable[[], torch.Tensor]


class FileTensors(TensorSource):
    """The tensors of one file."""

    def __init__(self, entries: Mapping[str, TensorEntry]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._entries[name].load()

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def where(self, name: str) -> Path:
        return self._entries[name].where

    def dtype(self, name: str) -> torch.dtype:
        return self._entries[name].dtype


class TensorView(TensorSource):
    """Tensors of other sources under names of its own: `{name: (source, name there)}`."""

    def __init__(self, places: Mapping[str, tuple[TensorSource, str]]) -> None:
        self._places = dict(places)

    def __getitem__(self, name: str) -> torch.Tensor:
        source, inner = self._places[name]
        return source[inner]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        source, inner = self._places[name]
        return source.shape(inner)

    def where(self, name: str) -> Path:
        source, inner = self._places[name]
        return source.where(inner)

    def dtype(self, name: str) -> torch.dtype:
        source, inner = self._places[name]
        return source.dtype(inner)


class DerivedTensors(TensorSource):
    """Another source of which some tensors are computed; names and shapes stay.

    Subclasses give `__getitem__` and `dtype`.
    """

    def __init__(self, weights: TensorSource) -> None:
        self.weights = weights

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights)

    def __len__(self) -> int:
        return len(self.weights)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.weights.shape(name)

    def where(self, name: str) -> Path:
        return self.weights.where(name)


def from_tensors(tensors: Mapping[str, torch.Tensor], where: Path) -> TensorSource:
    """A source over tensors that are already at hand (in memory or memory-mapped)."""

    def entry(tensor: torch.Tensor) -> TensorEntry:
        return TensorEntry(tuple(tensor.shape), tensor.dtype, where, lambda: tensor)

    return FileTensors({name: entry(tensor) for name, tensor in tensors.items()})


def renamed(
    source: TensorSource, names: Mapping[str, str] | Callable[[str], str | None]
) -> TensorSource:
    """A view under other names.

    Args:
        source: where the tensors come from.
        names: `{new: old}`, which keeps exactly these tensors; or a function from the old name to
            the new one, where None leaves the tensor out (the caller documents why).

    Raises:
        BadInput: a name is not in the source, or two tensors would get the same name.
    """
    if isinstance(names, Mapping):
        for old in names.values():
            if old not in source:
                raise BadInput(f"No tensor is called {old}; check that the checkpoint is complete.")
        return TensorView({new: (source, old) for new, old in names.items()})
    places: dict[str, tuple[TensorSource, str]] = {}
    for old in source:
        new = names(old)
        if new is None:
            continue
        if new in places:
            raise BadInput(
                f"{source.where(old)} holds {new} twice, as {places[new][1]} and as {old}; remove "
                f"one of them."
            )
        places[new] = (source, old)
    return TensorView(places)


def merged(*sources: TensorSource) -> TensorSource:
    """One view over several sources.

    Raises:
        BadInput: two sources hold a tensor of the same name.
    """
    places: dict[str, tuple[TensorSource, str]] = {}
    for source in sources:
        for name in source:
            if name in places:
                raise BadInput(
                    f"{name} is in {places[name][0].where(name)} and again in "
                    f"{source.where(name)}; remove one of them."
                )
            places[name] = (source, name)
    return TensorView(places)


def without_module(name: str) -> str:
    """The name without the `module.` that DistributedDataParallel puts before it."""
    return name.removeprefix("module.")
