"""OpenFlamingo's gated cross-attention.

Contract: parameter names and arithmetic equal OpenFlamingo's `GatedCrossAttentionBlock`
(open_flamingo 0.0.2, `helpers.py`). Without any image the whole block is skipped, feed-forward
included.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qlora.model.injection.attention import CrossAttention, attend_to_images
from qlora.model.layers import DIM_HEAD, LayerNorm, feed_forward, split_heads


@dataclass(frozen=True)
class Gated(CrossAttention):
    """Gated cross-attention by OpenFlamingo's blocks, skipped in conversations without images.

    Attributes:
        layers: decoder layers that have a gated block before them.
        heads: attention heads of a block.
    """

    layers: tuple[int, ...]
    heads: int
    dim_head = DIM_HEAD

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.heads

    def block(self, hidden: int, dim_visual: int) -> GatedCrossAttentionBlock:
        """One gated block."""
        return GatedCrossAttentionBlock(hidden, dim_visual, self.dim_head, self.heads)


class MaskedCrossAttention(nn.Module):
    """Text attends to the resampled tokens of one image each; the media side has no norm."""

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm = LayerNorm(dim)
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
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        k, v = self.to_kv(visual.flatten(1, 2)).chunk(2, dim=-1)  # [B, N * L, inner]
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)
        return self.to_out(attend_to_images(q, k, v, image_index, visual))


class GatedCrossAttentionBlock(nn.Module):
    """`x += tanh(attn_gate) * attention; x += tanh(ff_gate) * feed-forward`; gates start at 0."""

    skips = True  # in a conversation without images

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.attn = MaskedCrossAttention(dim, dim_visual, dim_head, heads)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(dim)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, visual: Tensor, image_index: Tensor) -> Tensor:
        x = x + self.attn_gate.tanh() * self.attn(x, visual, image_index)
        return x + self.ff_gate.tanh() * self.ff(x)
