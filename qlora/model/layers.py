"""Small layers that several parts are made of.

Contract: arithmetic and parameter names of OpenFlamingo's (open_flamingo 0.0.2, `helpers.py`).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Widths of one attention head in the resampler and in the gated blocks. OpenFlamingo fixes it, and
# no checkpoint tells it: only heads * DIM_HEAD shows in the tensors.
DIM_HEAD = 64


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
