"""open_clip's vision half for a model config, with a convolutional stem where the config has one.

Contract: modules only, no weights. `stem` in `vision_cfg` is this project's own key; everything
else is as open_clip spells it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch
from torch import nn

# Key of `vision_cfg`: `[channels, stride]` of each convolution of the stem.
STEM = "stem"


def clip_visual(config: dict[str, Any], epsilon: float = 1e-5) -> nn.Module:
    """The vision transformer of a config whose `quick_gelu` is settled, on the meta device.

    Args:
        config: open_clip model config.
        epsilon: of its norms.
    """
    vision = {key: value for key, value in config["vision_cfg"].items() if key != STEM}
    vision["norm_kwargs"] = {"eps": epsilon}
    with torch.device("meta"):
        # The text half is made small, and dropped.
        text = {"context_length": 1, "vocab_size": 1, "width": 64, "heads": 1, "layers": 1}
        clip = open_clip.CLIP(config["embed_dim"], vision, text, config["quick_gelu"])
        if STEM in config["vision_cfg"]:
            clip.visual.conv1 = conv_stem(config["vision_cfg"][STEM], vision["width"])
    return clip.visual


def conv_stem(layers: Sequence[Sequence[int]], width: int, normed: bool = False) -> nn.Sequential:
    """Convolutions instead of the patch embedding (arXiv 2106.14881).

    Args:
        layers: `[channels, stride]` of each 3 x 3 convolution, a ReLU after each; the product of
            the strides is the patch size.
        width: of the tower; a 1 x 1 convolution leads to it.
        normed: with a batch norm after each 3 x 3 convolution, for training; for inference they
            are folded into the convolutions.

    Returns:
        `[n, 3, H, W]` -> `[n, width, H / patch, W / patch]`.
    """
    modules: list[nn.Module] = []
    before = 3
    for channels, stride in layers:
        modules.append(nn.Conv2d(before, channels, 3, stride, 1, bias=not normed))
        modules += [nn.BatchNorm2d(channels)] if normed else []
        modules.append(nn.ReLU())
        before = channels
    return nn.Sequential(*modules, nn.Conv2d(before, width, 1, bias=False))
