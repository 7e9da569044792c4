"""CLIP's vision tower as OpenFlamingo uses it: the last layer's patch tokens.

Contract: no class token, no `ln_post`, no projection, and the activation that the weights were
trained with. open_clip changed two of these silently (2.23: `ln_post` on tokens; 2.29: QuickGELU no
longer implied by the `openai` tag), so both are asked for by name here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from qlora.checkpoints.clip_visual import clip_visual


def vision_tower(config: dict[str, Any]) -> nn.Module:
    """open_clip's vision transformer for a model config whose `quick_gelu` is settled.

    On the meta device: the caller fills in the weights. `ln_post` and `proj`, which patch tokens
    never pass, are dropped.
    """
    visual = clip_visual(config)
    visual.ln_post = nn.Identity()
    visual.proj = None  # type: ignore[assignment]
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
