"""LLaVA's projector in the vision graph.

Contract: equals `qlora.model.connectors.projector.MlpProjector`.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graph import CONTRIB, Graph
from export.part_writer import PartWriter
from qlora.checkpoints.sources import TensorSource
from qlora.model.connectors.projector import Projector


class ProjectorWriter(PartWriter):
    """Writes the projector of one model."""

    def __init__(self, graph: Graph, connector: Projector, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.connector = connector

    def connect(self, media: ir.Value) -> ir.Value:
        """`[n, T, W]` -> `[n, T, D_vis]`."""
        x = media
        for i in range(self.connector.depth):
            x = self.g.op("Gelu", x, domain=CONTRIB) if i else x
            x = self.linear(x, f"projector.layers.{i}", bias=self.connector.bias)
        return x
