"""The perceiver resampler: any number of patch tokens in, a fixed number of latents out.

Contract: parameter names and arithmetic equal OpenFlamingo's `PerceiverResampler` (open_flamingo
0.0.2, `helpers.py`) without frame or media embeddings, so that its checkpoints load as they are.
IDEFICS's has a norm for each head's queries and keys, and another activation.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class LayerNorm(nn.LayerNorm):
    """A layer norm whose output has its input's type.

    Under autocast on a GPU torch's is float32, and so is all that it is added to from there on.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x)


def feed_forward(dim: int, mult: int = 4, activation: str = "gelu") -> nn.Sequential:
    """LayerNorm -> Linear -> exact (erf) GELU or ReLU -> Linear, without biases on the linears."""
    return nn.Sequential(
        LayerNorm(dim),
        nn.Linear(dim, dim * mult, bias=False),
        nn.GELU() if activation == "gelu" else nn.ReLU(),
        nn.Linear(dim * mult, dim, bias=False),
    )


def split_heads(x: Tensor, heads: int) -> Tensor:
    """`[B, T, heads * d]` -> `[B, heads, T, d]`."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


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
    """Resample patch tokens `[n, P, D]` to resampled tokens `[n, L, D]`, each image on its own."""

    def __init__(
        self,
        dim: int,
        depth: int = 6,
        dim_head: int = 64,
        heads: int = 8,
        num_latents: int = 64,
        head_norms: bool = False,
        activation: str = "gelu",
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(num_latents, dim))
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    PerceiverAttention(dim, dim_head, heads, head_norms),
                    feed_forward(dim, activation=activation),
                ]
            )
            for _ in range(depth)
        )
        self.norm = LayerNorm(dim)

    def forward(self, media: Tensor) -> Tensor:
        latents = self.latents.expand(media.shape[0], -1, -1)
        for attend, feed in (layer.children() for layer in self.layers):
            latents = latents + attend(media, latents)
            latents = latents + feed(latents)
        return self.norm(latents)
