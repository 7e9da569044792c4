"""mPLUG-Owl's visual abstractor: queries that attend to the image, and an end token.

Contract: parameter names and arithmetic of X-PLUG/mPLUG-Owl at 0f3068f
(`modeling_mplug_owl.py`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from qlora.model.layers import split_heads

# Of the norm inside the abstractor's feed-forward; its other norms have torch's default, 1e-5.
FFN_EPSILON = 1e-6


@dataclass(frozen=True)
class Abstractor:
    """The visual abstractor of mPLUG-Owl.

    Attributes:
        dim: width inside.
        dim_media: width of the encoder's tokens.
        queries: learned queries; one more token comes out.
        depth: layers.
        heads: attention heads.
        inner: width of the feed-forward's gated layer.
        width: of a token out.
    """

    dim: int
    dim_media: int
    queries: int
    depth: int
    heads: int
    inner: int
    width: int
    name = "abstractor"

    @property
    def latents(self) -> int:
        """Tokens out."""
        return self.queries + 1

    def build(self) -> VisualAbstractor:
        """The module."""
        return VisualAbstractor(self)


class AbstractorLayer(nn.Module):
    """Queries attend to themselves and to the image, then a gated feed-forward.

    The residual is the *normalised* query: so the reference computes it.
    """

    def __init__(self, config: Abstractor) -> None:
        super().__init__()
        dim, inner = config.dim, config.inner
        self.heads = config.heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.normk = nn.LayerNorm(config.dim_media)
        self.query, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key, self.value = nn.Linear(config.dim_media, dim), nn.Linear(config.dim_media, dim)
        self.w1, self.w2, self.w3 = (
            nn.Linear(dim, inner),
            nn.Linear(inner, dim),
            nn.Linear(dim, inner),
        )
        self.ffn_ln = nn.LayerNorm(inner, eps=FFN_EPSILON)

    def forward(self, media: Tensor, queries: Tensor) -> Tensor:
        """`media [n, P, D]`, `queries [n, Q, D]` -> `[n, Q, D]`."""
        queries = self.norm1(queries)
        seen = torch.cat((queries, self.normk(media)), dim=1)
        q, k, v = (
            split_heads(x, self.heads)
            for x in (self.query(queries), self.key(seen), self.value(seen))
        )
        out = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = queries + self.out_proj(out)
        h = self.norm2(x)
        return x + self.w2(self.ffn_ln(silu(self.w1(h)) * self.w3(h)))


class VisualAbstractor(nn.Module):
    """mPLUG-Owl's connector: `queries` tokens and the end token `vit_eos`."""

    def __init__(self, config: Abstractor) -> None:
        super().__init__()
        self.query_tokens = nn.Parameter(torch.zeros(1, config.queries, config.dim))
        self.layers = nn.ModuleList(AbstractorLayer(config) for _ in range(config.depth))
        self.visual_fc = nn.Linear(config.dim, config.width)
        self.vit_eos = nn.Parameter(torch.zeros(1, 1, config.width))

    def forward(self, media: Tensor) -> Tensor:
        """`[n, P, D]` -> `[n, queries + 1, width]`."""
        x = self.query_tokens.expand(media.shape[0], -1, -1)
        for layer in self.layers:
            x = layer(media, x)
        end = self.vit_eos.expand(media.shape[0], -1, -1)
        return torch.cat((self.visual_fc(x), end), dim=1)
