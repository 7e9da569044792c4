"""What the two graphs ask of an injection, whichever it is.

Contract: `features` belongs to the vision graph and everything else to the decoder's, in the order
of the methods; a writer is made anew for each graph.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from export.graph import Graph
from export.part_writer import PartWriter
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig


@dataclass(frozen=True)
class AttendedImages:
    """Which image each token attends to, in the decoder graph.

    Attributes:
        last: int32 `[1, T]`, the image or, of several, the last; 0 for none.
        first: int32 `[1, T]`, the first of several; the same value as `last` where there is one.
        some: bool `[1, T]`, whether the token attends to one.
        any: bool `[]`, whether any token does.
    """

    last: ir.Value
    first: ir.Value
    some: ir.Value
    any: ir.Value


class InjectionWriter(PartWriter):
    """Writes how visual tokens enter the decoder of one model."""

    images: AttendedImages

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.config = config

    @abstractmethod
    def features(self, visual: ir.Value) -> tuple[ir.Value, list[int | str]]:
        """From visual tokens `[n, L, D_vis]` to what the decoder takes of them, and its shape."""

    @abstractmethod
    def declare(self) -> None:
        """The inputs of the decoder graph that depend on the injection."""

    def prepare(self, images: AttendedImages) -> None:
        """What all blocks share."""
        self.images = images

    @abstractmethod
    def embed(self, ids: ir.Value, embedding: Callable[[ir.Value], ir.Value]) -> ir.Value:
        """The decoder's input `[1, T, D]` for `ids [1, T]`."""

    def block(self, x: ir.Value, layer: int) -> ir.Value:
        """The gated block before a decoder layer, on `x [1, T, D]`."""
        raise NotImplementedError("this injection adds no blocks")
