"""mPLUG-Owl's visual abstractor in the vision graph.

Contract: equals `qlora.model.connectors.abstractor.VisualAbstractor`.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graph import CONTRIB, Graph
from export.part_writer import PartWriter
from qlora.checkpoints.sources import TensorSource
from qlora.model.connectors.abstractor import FFN_EPSILON, Abstractor


class AbstractorWriter(PartWriter):
    """Writes the abstractor of one model."""

    def __init__(self, graph: Graph, connector: Abstractor, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.connector = connector

    def connect(self, media: ir.Value) -> ir.Value:
        """`[n, P, W]` -> `[n, queries + 1, D_vis]`."""
        x = self._learned(media, "abstractor.query_tokens")
        for i in range(self.connector.depth):
            x = self._layer(media, x, f"abstractor.layers.{i}")
        x = self.linear(x, "abstractor.visual_fc", bias=True)
        return self.g.op("Concat", x, self._learned(media, "abstractor.vit_eos"), axis=1)

    def _learned(self, media: ir.Value, name: str) -> ir.Value:
        return self.for_each_image(media, name, self.array(name))

    def _layer(self, media: ir.Value, queries: ir.Value, name: str) -> ir.Value:
        g, heads = self.g, self.connector.heads

        def linear(x: ir.Value, part: str) -> ir.Value:
            return self.linear(x, f"{name}.{part}", bias=True)

        # Attention of the queries to themselves and to the image.
        queries = self.layer_norm(queries, f"{name}.norm1")
        seen = g.op("Concat", queries, self.layer_norm(media, f"{name}.normk"), axis=1)
        q, k, v = linear(queries, "query"), linear(seen, "key"), linear(seen, "value")
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        x = g.op("Add", queries, linear(h, "out_proj"))
        # Gated feed-forward with a norm inside.
        h = self.layer_norm(x, f"{name}.norm2")
        gate = g.op("QuickGelu", linear(h, "w1"), domain=CONTRIB, alpha=1.0)  # SiLU
        h = self.layer_norm(g.op("Mul", gate, linear(h, "w3")), f"{name}.ffn_ln", FFN_EPSILON)
        return g.op("Add", x, linear(h, "w2"))
