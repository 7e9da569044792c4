"""CLIP's vision tower as connectors use it: the tokens of one of its layers.

Contract: no projection, class token and `ln_post` only where the config asks for them, and the
activation and epsilon that the weights were trained with. open_clip changed two of these silently
(2.23: `ln_post` on tokens; 2.29: QuickGELU no longer implied by the `openai` tag), so both are
asked for by name here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from qlora.checkpoints.clip_visual import clip_visual


@dataclass(frozen=True)
class ClipEncoder:
    """A vision transformer, and which of its tokens are used.

    Attributes:
        clip: open_clip model config, `quick_gelu` settled; its layers are those that are used.
        keep_class: the class token is used too, before the patch tokens.
        final_norm: `ln_post` is applied to every token.
        epsilon: of its norms.
    """

    clip: dict[str, Any]
    keep_class: bool = False
    final_norm: bool = False
    epsilon: float = 1e-5
    name = "clip"
    padded = False

    @property
    def width(self) -> int:
        """Of a token."""
        return int(self.clip["vision_cfg"]["width"])

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.clip["vision_cfg"]["image_size"])

    @property
    def patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // int(self.clip["vision_cfg"]["patch_size"])) ** 2

    @property
    def tokens(self) -> int:
        """Tokens of one image that the connector gets."""
        return self.patches + self.keep_class

    def build(self) -> nn.Module:
        """open_clip's vision transformer, on the meta device.

        `proj`, which tokens never pass, is dropped, and so is `ln_post` where they do not.
        """
        visual = clip_visual(self.clip, self.epsilon)
        if not self.final_norm:
            visual.ln_post = nn.Identity()
        visual.proj = None  # type: ignore[assignment]
        return visual

    def encode(self, encoder: Any, pixels: Tensor) -> tuple[Tensor, None]:
        """`pixels [n, 3, H, W]` -> tokens `[n, tokens, width]`, the class token first if kept."""
        features = encoder.forward_intermediates(
            pixels,
            indices=1,  # the last layer alone
            normalize_intermediates=True,
            intermediates_only=True,
            output_fmt="NLC",
            output_extra_tokens=True,
        )
        patches = features["image_intermediates"][-1]  # [n, patches, width]
        if not self.keep_class:
            return patches, None
        class_token = features["image_intermediates_prefix"][-1]  # [n, 1, width]
        return torch.cat((class_token, patches), dim=1), None
