"""LLaVA's projector: linear layers with GELU between them, on each token alone.

Contract: the arithmetic of haotian-liu/LLaVA's at c121f04 (`multimodal_projector/builder.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import gelu


@dataclass(frozen=True)
class Projector:
    """The projector of LLaVA, and with one layer that of Llama-3.2-Vision.

    Attributes:
        dim_media: width of the encoder's tokens.
        width: of a token out.
        depth: linear layers.
        latents: tokens, in and out.
        bias: the linear layers have biases.
    """

    dim_media: int
    width: int
    depth: int
    latents: int
    bias: bool = True
    name = "projector"

    def build(self) -> MlpProjector:
        """The module."""
        return MlpProjector(self)


class MlpProjector(nn.Module):
    """The linear layers."""

    def __init__(self, config: Projector) -> None:
        super().__init__()
        widths = [config.dim_media, *[config.width] * config.depth]
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=config.bias) for a, b in pairwise(widths))

    def forward(self, media: Tensor) -> Tensor:
        """`[n, T, D]` -> `[n, T, width]`."""
        x = self.layers[0](media)
        for layer in self.layers[1:]:
            x = layer(gelu(x))
        return x
