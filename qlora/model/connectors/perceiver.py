"""The perceiver resampler: any number of patch tokens in, a fixed number of latents out.

Contract: parameter names and arithmetic equal OpenFlamingo's `PerceiverResampler` (open_flamingo
0.0.2, `helpers.py`) without frame or media embeddings, so that its checkpoints load as they are.
IDEFICS's has a norm for each head's queries and keys, and another activation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from qlora.model.layers import DIM_HEAD, LayerNorm, feed_forward, split_heads


@dataclass(frozen=True)
class Perceiver:
    """A perceiver resampler, OpenFlamingo's or IDEFICS's.

    Attributes:
        width: of its tokens, in and out.
        latents: tokens out.
        depth: layers.
        heads: attention heads.
        dim_head: width of a head.
        head_norms: queries and keys pass a norm of their own, head by head.
        activation: of the feed-forward, `gelu` or `relu`.
    """

    width: int
    latents: int
    depth: int
    heads: int
    dim_head: int = DIM_HEAD
    head_norms: bool = False
    activation: str = "gelu"
    name = "perceiver"

    def build(self) -> PerceiverResampler:
        """The module."""
        return PerceiverResampler(self)


class PerceiverAttention(nn.Module):
    """Latents attend to the media tokens and to themselves."""

    def __init__(self, dim: int, dim_head: int, heads: int, head_norms: bool = False) -> None:
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm_media = LayerNorm(dim)
        self.norm_latents = LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)
        self.q_norm = LayerNorm(dim_head) if head_norms else nn.Identity()
        self.k_norm = LayerNorm(dim_head) if head_norms else nn.Identity()

    def forward(self, media: Tensor, latents: Tensor) -> Tensor:
        """`media [n, P, D]`, `latents [n, L, D]` -> `[n, L, D]`."""
        media, latents = self.norm_media(media), self.norm_latents(latents)
        q = self.to_q(latents)
        k, v = self.to_kv(torch.cat((media, latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (split_heads(x, self.heads) for x in (q, k, v))
        # [n, heads, L, d]
        out = scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.to_out(out.transpose(1, 2).flatten(2))


class PerceiverResampler(nn.Module):
    """Resample patch tokens `[n, P, D]` to visual tokens `[n, L, D]`, each image on its own."""

    def __init__(self, config: Perceiver) -> None:
        super().__init__()
        width = config.width
        self.latents = nn.Parameter(torch.randn(config.latents, width))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(width, config.dim_head, config.heads, config.head_norms),
                    feed_forward(width, activation=config.activation),
                ]
            )
            for _ in range(config.depth)
        )
        self.norm = LayerNorm(width)

    def forward(self, media: Tensor) -> Tensor:
        """`[n, P, D]` -> `[n, L, D]`."""
        latents = self.latents.expand(media.shape[0], -1, -1)
        for attend, feed in (layer.children() for layer in self.layers):
            latents = latents + attend(media, latents)
            latents = latents + feed(latents)
        return self.norm(latents)
