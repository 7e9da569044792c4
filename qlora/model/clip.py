"""CLIP's vision tower as OpenFlamingo uses it: the last layer's patch tokens.

Contract: no class token, no `ln_post`, no projection, and the activation that the weights were
trained with. open_clip changed two of these silently (2.23: `ln_post` on tokens; 2.29: QuickGELU no
longer implied by the `openai` tag), so both are asked for by name here.
"""

from __future__ import annotations

from typing import Any

import open_clip
import torch
from torch import Tensor, nn


def vision_tower(config: dict[str, Any]) -> nn.Module:
    """open_clip's vision transformer for a model config whose `quick_gelu` is settled.

    Its text half is built on the meta device only and dropped, and so are `ln_post` and `proj`,
    which patch tokens never pass. The caller fills in the weights.
    """
    with torch.device("meta"):
        clip = open_clip.CLIP(
            embed_dim=config["embed_dim"],
            vision_cfg=config["vision_cfg"],
            text_cfg=config["text_cfg"],
            quick_gelu=config["quick_gelu"],
        )
    visual = clip.visual
    visual.ln_post = nn.Identity()
    visual.proj = None
    return visual


def patch_tokens(visual: nn.Module, pixels: Tensor) -> Tensor:
    """`pixels [n, 3, H, W]` -> patch tokens `[n, (H / patch) * (W / patch), width]`."""
    features = visual.forward_intermediates(  # type: ignore[operator]
        pixels,
        indices=1,
        normalize_intermediates=False,
        intermediates_only=True,
        output_fmt="NLC",
    )
    return features["image_intermediates"][-1]
