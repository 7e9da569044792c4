"""What an encoder, a connector and an injection are to the rest of the model.

Contract: each part is one file in `encoders/`, `connectors/` or `injection/`, with a frozen
dataclass of its sizes and the torch module that the dataclass builds. Nothing outside these files
asks which part it has: what it needs to know is here.
"""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class EncoderConfig(Protocol):
    """The sizes of a vision encoder."""

    @property
    def name(self) -> str:
        """What people call encoders of this kind."""

    @property
    def width(self) -> int:
        """Of a token."""

    @property
    def tokens(self) -> int:
        """Tokens of one image that the connector gets."""

    @property
    def padded(self) -> bool:
        """Whether some of these tokens stand for nothing: those of tiles that are not filled."""

    def build(self) -> nn.Module:
        """The module, on the meta device: the caller fills in the weights."""

    def encode(self, encoder: Any, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """
        Args:
            encoder: the module of `build`, with weights.
            pixels: `[n, 3, H, W]`.

        Returns:
            Tokens `[n, T, width]`; and, 0 for those that stand for nothing and otherwise 1,
            `[n, T, 1]`, or None where `padded` is False.
        """


class ConnectorConfig(Protocol):
    """The sizes of what makes visual tokens of the encoder's tokens."""

    @property
    def name(self) -> str:
        """What people call connectors of this kind, and the module's name in the model."""

    @property
    def width(self) -> int:
        """Of a visual token."""

    @property
    def latents(self) -> int:
        """Visual tokens of one image."""

    def build(self) -> nn.Module:
        """The module, from `[n, T, D_in]` to `[n, latents, width]`, every image on its own."""


class InjectionConfig(Protocol):
    """How visual tokens enter the decoder, and the sizes of the blocks that it adds."""

    @property
    def name(self) -> str:
        """See `lite.bundle.injection`."""

    @property
    def layers(self) -> tuple[int, ...]:
        """Decoder layers that have a gated block before them."""

    @property
    def heads(self) -> int:
        """Attention heads of a block; 0 without blocks, and so are the next two."""

    @property
    def kv_heads(self) -> int:
        """Heads of its keys and values."""

    @property
    def dim_head(self) -> int:
        """Width of one of its heads."""

    def block(self, hidden: int, dim_visual: int) -> nn.Module:
        """One gated block between hidden states and visual tokens of these widths."""

    def visual_width(self, hidden: int) -> int | None:
        """The width that visual tokens must have for a decoder of that width; None for any."""

    def decoder_inputs(
        self, ids: Tensor, visual: Tensor | None, index: Tensor, embedding: nn.Module
    ) -> dict[str, Any]:
        """What the decoder is called with.

        Args:
            ids: `[B, T]`.
            visual: visual tokens `[B, n, L, D_vis]`; None without images.
            index: int `[B, T]` or `[B, T, 2]`, see `lite.bundle.injection.Injection.index`.
            embedding: from ids to the decoder's input.
        """
