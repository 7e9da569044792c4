"""Gated blocks of LLaMA's building blocks, in both graphs.

Contract: equals `qlora.model.injection.gated_llama.GatedLlamaBlock`.
"""

from __future__ import annotations

from typing import cast

import onnx_ir as ir

from export.graph import Graph
from export.injections.cross_attention import CrossAttentionWriter
from qlora.checkpoints.sources import TensorSource
from qlora.model.config import ModelConfig
from qlora.model.injection.gated_llama import GatedLlama


class GatedLlamaWriter(CrossAttentionWriter):
    """Writes the blocks of one model."""

    def __init__(self, graph: Graph, config: ModelConfig, weights: TensorSource) -> None:
        super().__init__(graph, config, weights)
        self.injection = cast(GatedLlama, config.injection)  # as the table of writers says

    def keys_and_values(self, visual: ir.Value, name: str) -> ir.Value:
        """Two projections; keys pass a norm of their own, head by head, where there is one."""
        key, value = (self.linear(visual, f"{name}.{part}") for part in ("k_proj", "v_proj"))
        if self.injection.head_norms:
            key = self._head_norm(key, f"{name}.k_norm", self.injection.kv_heads)
        return self.g.op("Concat", key, value, axis=-1)

    def block(self, x: ir.Value, layer: int) -> ir.Value:
        """Attention where a token attends to an image; the feed-forward there, or always."""
        g, name, any_attends = self.g, self.name_of(layer), self.images.any

        def attended() -> ir.Value:
            return g.op("Add", x, self._cross_attention(x, name, layer))

        def masked() -> ir.Value:
            h = attended()
            return g.op("Add", h, g.op("Mul", self._feed_forward(h, name), self.row_mask))

        if not self.injection.always:
            return g.either(any_attends, masked, lambda: x)
        h = g.either(any_attends, attended, lambda: x)
        return g.op("Add", h, self._feed_forward(h, name))

    def _cross_attention(self, x: ir.Value, name: str, layer: int) -> ir.Value:
        injection = self.injection
        h = self.rms_norm(x, f"{name}.input_layernorm", injection.epsilon)
        q = self.linear(h, f"{name}.q_proj", role="cross_attention")
        if injection.head_norms:
            q = self._head_norm(q, f"{name}.q_norm", injection.heads)
        out = self.gated_matrix(name, "o_proj", "attn_gate")
        attended = self.attend(q, layer)
        return self.g.linear(attended, f"{name}.o_proj", out, role="cross_attention")

    def _feed_forward(self, x: ir.Value, name: str) -> ir.Value:
        h = self.rms_norm(x, f"{name}.post_attention_layernorm", self.injection.epsilon)
        return self.swiglu(h, name, self.gated_matrix(name, "down_proj", "ff_gate"))

    def _head_norm(self, x: ir.Value, name: str, heads: int) -> ir.Value:
        return self.by_head(x, heads, lambda h: self.rms_norm(h, name, self.injection.epsilon))
