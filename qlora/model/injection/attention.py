"""Cross-attention from text to visual tokens, as all gated blocks compute it.

Contract: which token attends to which image is decided by `lite.bundle.attend` and comes in as
`image_index`; a token that attends to none gets exactly zero.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from lite.bundle.injection import GATED


class CrossAttention:
    """What all injections by gated cross-attention have in common; see `InjectionConfig`."""

    name = GATED

    def visual_width(self, hidden: int) -> int | None:
        """Any: keys and values are projections of the visual tokens."""
        return None

    def decoder_inputs(
        self, ids: Tensor, visual: Tensor | None, index: Tensor, embedding: nn.Module
    ) -> dict[str, Any]:
        """The decoder embeds the ids itself, and hands the rest on to its blocks."""
        return {"input_ids": ids, "visual": visual, "image_index": index}


def attend_to_images(
    q: Tensor, k: Tensor, v: Tensor, image_index: Tensor, visual: Tensor
) -> Tensor:
    """Attention of each token to the visual tokens of its image, or images.

    Args:
        q: `[B, heads, T, d]`.
        k, v: `[B, kv_heads, N * L, d]`.
        image_index: int `[B, T]`, the image that each token attends to, 0 for none; or
            `[B, T, 2]`, the first and the last.
        visual: what keys and values were made of, `[B, N, L, D_vis]`; zeros are no tokens.

    Returns:
        `[B, T, heads * d]`, exactly zero where `image_index` is 0.
    """
    _, images, latents, _ = visual.shape
    owner = torch.arange(images, device=q.device).repeat_interleave(latents) + 1
    ranges = image_index if image_index.dim() == 3 else image_index[..., None]  # [B, T, 1 or 2]
    first, last = ranges[..., :1], ranges[..., -1:]
    attends_to_none = last[..., 0] == 0
    is_token = visual.any(-1).flatten(1)[:, None]  # [B, 1, N * L]
    # A row that may attend to nothing would make softmax divide by zero: let it attend to
    # everything, and blank its output below.
    allowed = ((first <= owner) & (owner <= last) & is_token) | attends_to_none[
        ..., None
    ]  # [B, T, N * L]
    grouped = q.shape[1] != k.shape[1]
    out = scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None], enable_gqa=grouped)
    out = out.masked_fill(attends_to_none[:, None, :, None], 0.0)
    return out.transpose(1, 2).flatten(2)
