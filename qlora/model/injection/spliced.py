"""Visual tokens as embeddings in the prompt, where `<image>` tokens stand.

Contract: the arithmetic of LLaVA and mPLUG-Owl: the decoder itself stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lite.bundle.injection import SPLICED


@dataclass(frozen=True)
class Spliced:
    """Visual tokens replace `<image>` tokens."""

    layers: tuple[int, ...] = ()
    heads: int = 0
    kv_heads: int = 0
    dim_head = 0
    name = SPLICED

    def block(self, hidden: int, dim_visual: int) -> nn.Module:
        """There is none."""
        raise NotImplementedError("spliced visual tokens need no gated block")

    def visual_width(self, hidden: int) -> int:
        """That of the decoder's embeddings."""
        return hidden

    def decoder_inputs(
        self, ids: Tensor, visual: Tensor | None, index: Tensor, embedding: nn.Module
    ) -> dict[str, Any]:
        """Embeddings `[B, T, D]` of `ids`, with those of images where `<image>` tokens stand."""
        is_image = index > 0
        # `<image>` needs no row of its own.
        x = embedding(ids.masked_fill(is_image, 0))
        if visual is None:
            return {"inputs_embeds": x}
        # Images are whole, so counting the image tokens of a row gives each its number in its
        # image.
        offset = (is_image.cumsum(1) - 1) % visual.shape[2]  # [B, T]
        row = torch.arange(len(ids), device=ids.device)[:, None]
        tokens = visual[row, (index - 1).clamp(min=0), offset]  # [B, T, D]
        return {"inputs_embeds": torch.where(is_image[..., None], tokens.to(x.dtype), x)}
