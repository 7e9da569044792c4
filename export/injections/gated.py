"""OpenFlamingo's gated blocks in both graphs.

Contract: equals `qlora.model.injection.gated.GatedCrossAttentionBlock`. The gated feed-forward runs
for every token of a conversation with images, cross-attention only where some token attends to one.
"""

from __future__ import annotations

import onnx_ir as ir

from export.graph import BOOL, CONTRIB
from export.injections.cross_attention import CrossAttentionWriter


class GatedWriter(CrossAttentionWriter):
    """Writes the blocks of one model."""

    conditioned: ir.Value  # bool []: the conversation has an image

    def keys_and_values(self, visual: ir.Value, name: str) -> ir.Value:
        """One projection gives both."""
        return self.linear(visual, f"{name}.attn.to_kv")

    def declare(self) -> None:
        """And whether the blocks run at all."""
        self.conditioned = self.g.input("conditioned", BOOL, [])
        super().declare()

    def block(self, x: ir.Value, layer: int) -> ir.Value:
        """Skipped in a conversation without images."""
        g, name = self.g, self.name_of(layer)

        def run() -> ir.Value:
            h = g.either(
                self.images.any,
                lambda: g.op("Add", x, self._cross_attention(x, name, layer)),
                lambda: x,
            )
            return g.op("Add", h, self._feed_forward(h, name))

        return g.either(self.conditioned, run, lambda: x)

    def _cross_attention(self, x: ir.Value, name: str, layer: int) -> ir.Value:
        h = self.layer_norm(x, f"{name}.attn.norm")
        q = self.linear(h, f"{name}.attn.to_q", role="cross_attention")
        return self.g.linear(
            self.attend(q, layer),
            f"{name}.attn.to_out",
            self.gated_matrix(name, "attn.to_out", "attn_gate"),
            role="cross_attention",
        )

    def _feed_forward(self, x: ir.Value, name: str) -> ir.Value:
        h = self.linear(self.layer_norm(x, f"{name}.ff.0"), f"{name}.ff.1")
        h = self.g.op("Gelu", h, domain=CONTRIB)
        return self.g.linear(h, f"{name}.ff.3", self.gated_matrix(name, "ff.3", "ff_gate"))
