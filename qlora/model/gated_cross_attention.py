"""The gated cross-attention block, and the layer that puts it before a LLaMA layer.

Contract: parameter names and arithmetic equal OpenFlamingo's `GatedCrossAttentionBlock`
(open_flamingo 0.0.2, `helpers.py`); which token sees which image is decided by `lite.attend` and
comes in as `image_index`. Without any image the whole block is skipped, feed-forward included.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint

from qlora.model.perceiver import feed_forward, split_heads


class MaskedCrossAttention(nn.Module):
    """Text attends to the resampled tokens of one image each; the media side has no norm."""

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim_visual, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, visual: Tensor, image_index: Tensor) -> Tensor:
        """
        Args:
            x: hidden states `[B, T, D]`.
            visual: resampled tokens `[B, N, L, D_vis]` of N images.
            image_index: int `[B, T]`, the image that each token sees, 0 for none.

        Returns:
            `[B, T, D]`, exactly zero where `image_index` is 0.
        """
        latents = visual.shape[2]
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        k, v = self.to_kv(visual.flatten(1, 2)).chunk(2, dim=-1)  # [B, N * L, inner]
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)
        owner = torch.arange(visual.shape[1], device=x.device).repeat_interleave(latents) + 1
        sees_none = image_index == 0
        # A row that may see nothing would make softmax divide by zero: let it see everything, and
        # blank its output below.
        allowed = (image_index[..., None] == owner) | sees_none[..., None]  # [B, T, N * L]
        out = scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None])
        out = out.masked_fill(sees_none[:, None, :, None], 0.0)
        return self.to_out(out.transpose(1, 2).flatten(2))


class GatedCrossAttentionBlock(nn.Module):
    """`x += tanh(attn_gate) * attention; x += tanh(ff_gate) * feed-forward`; gates start at 0."""

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.attn = MaskedCrossAttention(dim, dim_visual, dim_head, heads)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(dim)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, visual: Tensor, image_index: Tensor) -> Tensor:
        x = x + self.attn_gate.tanh() * self.attn(x, visual, image_index)
        return x + self.ff_gate.tanh() * self.ff(x)


class FlamingoLayer(nn.Module):
    """A LLaMA decoder layer with, where the interval asks for it, a gated block before it.

    It takes a decoder layer's place in `LlamaModel.layers`; `visual` and `image_index` reach it as
    keyword arguments that LlamaModel hands on untouched.

    Attributes:
        checkpointing: keep only the layer's input for the backward pass and compute the layer
            again there (arXiv 1604.06174), the gated block included; gradients stay the same.
    """

    def __init__(
        self, decoder_layer: nn.Module, gated_cross_attn_layer: GatedCrossAttentionBlock | None
    ) -> None:
        super().__init__()
        self.gated_cross_attn_layer = gated_cross_attn_layer
        self.decoder_layer = decoder_layer
        self.checkpointing = False

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # With a KV cache, the second computation would append to it again.
        cached = kwargs.get("past_key_values") is not None
        if self.checkpointing and torch.is_grad_enabled() and not cached:
            return checkpoint(self._compute, hidden_states, *args, use_reentrant=False, **kwargs)
        return self._compute(hidden_states, *args, **kwargs)

    def _compute(
        self,
        hidden_states: Tensor,
        *args: Any,
        visual: Tensor | None = None,
        image_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        if self.gated_cross_attn_layer is not None and visual is not None:
            hidden_states = self.gated_cross_attn_layer(hidden_states, visual, image_index)
        return self.decoder_layer(hidden_states, *args, **kwargs)
