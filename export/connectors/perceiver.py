"""The perceiver resampler in the vision graph.

Contract: equals `qlora.model.connectors.perceiver.PerceiverResampler`.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graph import CONTRIB, Graph
from export.part_writer import PartWriter
from qlora.checkpoints.sources import TensorSource
from qlora.model.connectors.perceiver import Perceiver


class PerceiverWriter(PartWriter):
    """Writes the resampler of one model."""

    def __init__(self, graph: Graph, connector: Perceiver, weights: TensorSource) -> None:
        super().__init__(graph, weights)
        self.connector = connector

    def connect(self, media: ir.Value) -> ir.Value:
        """`[n, P, W]` -> `[n, L, W]`."""
        g, latents = self.g, self.array("perceiver.latents")[None]
        x = self.for_each_image(media, "perceiver.latents", latents)
        for i in range(self.connector.depth):
            x = g.op("Add", x, self._attention(media, x, f"perceiver.layers.{i}.0"))
            h = self.layer_norm(x, f"perceiver.layers.{i}.1.0")
            h = self.linear(h, f"perceiver.layers.{i}.1.1")
            gelu = self.connector.activation == "gelu"
            h = g.op("Gelu", h, domain=CONTRIB) if gelu else g.op("Relu", h)
            x = g.op("Add", x, self.linear(h, f"perceiver.layers.{i}.1.3"))
        return self.layer_norm(x, "perceiver.norm")

    def _attention(self, media: ir.Value, latents: ir.Value, name: str) -> ir.Value:
        """Latents attend to the media tokens and to themselves."""
        g, heads = self.g, self.connector.heads
        latents = self.layer_norm(latents, f"{name}.norm_latents")
        media = self.layer_norm(media, f"{name}.norm_media")
        kv = self.linear(g.op("Concat", media, latents, axis=1), f"{name}.to_kv")
        k, v = g.op("Split", kv, axis=-1, num_outputs=2, outputs=2)  # [n, P + L, heads * d]
        q = self.linear(latents, f"{name}.to_q")
        if self.connector.head_norms:
            q = self.by_head(q, heads, lambda x: self.layer_norm(x, f"{name}.q_norm"))
            k = self.by_head(k, heads, lambda x: self.layer_norm(x, f"{name}.k_norm"))
        h = g.op("MultiHeadAttention", q, k, v, domain=CONTRIB, num_heads=heads)
        return self.linear(h, f"{name}.to_out")
