"""CLIP's vision tower as connectors use it: the last layer's tokens.

Contract: no projection, class token and `ln_post` only where the config asks for them, and the
activation and epsilon that the weights were trained with. open_clip changed two of these silently
(2.23: `ln_post` on tokens; 2.29: QuickGELU no longer implied by the `openai` tag), so both are
asked for by name here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qlora.checkpoints.clip_visual import clip_visual
from qlora.model.config import Encoder


def vision_tower(encoder: Encoder) -> nn.Module:
    """open_clip's vision transformer for an encoder.

    On the meta device: the caller fills in the weights. `proj`, which tokens never pass, is
    dropped, and so is `ln_post` where they do not.
    """
    visual = clip_visual(encoder.clip, encoder.epsilon)
    if not encoder.final_norm:
        visual.ln_post = nn.Identity()
    visual.proj = None  # type: ignore[assignment]

    return visual


def patch_tokens(visual: nn.Module, pixels: Tensor, keep_class: bool = False) -> Tensor:
    """`pixels [n, 3, H, W]` -> tokens `[n, (H / patch) * (W / patch), width]`.

    They went through `ln_post` if the tower has one; with `keep_class` the class token is first.
    """
    features = visual.forward_intermediates(  # type: ignore[operator]
        pixels,
        indices=1,
        normalize_intermediates=True,
        intermediates_only=True,
        output_fmt="NLC",
        output_extra_tokens=True,
    )
    patches = features["image_intermediates"][-1]
    if not keep_class:
        return patches
    return torch.cat((features["image_intermediates_prefix"][-1], patches), dim=1)
