"""Which open_clip vision configs this project computes: the plain vision transformer, and the same
with a convolutional stem.

Contract: these checks look at numbers of a config only. They refuse, by name, every setting that
changes the tower or the pixels from what the runtime's vision graph and preprocessing do.
"""

import dataclasses
import math
from typing import Any

from open_clip import CLIPVisionCfg

from lite.errors import BadInput
from qlora.checkpoints.checks import some
from qlora.checkpoints.clip_visual import STEM

_SIZES = ("layers", "width", "patch_size", "head_width")
# Settings that may differ from open_clip's defaults: sizes, and what acts in training only or
# on outputs that are not used.
_FREE = {*_SIZES, "image_size", "mlp_ratio", "patch_dropout", "output_tokens"}
# Of the pooled feature, which patch tokens do not pass; and the stem, which is checked below.
_FREE |= {"pool_type", "final_ln_after_pool", STEM}
# Far above any CLIP (ViT-bigG has 48): a damaged config must not build modules without end.
_MOST_LAYERS = 1000


def plain_vit(config: dict[str, Any], where: str) -> int:
    """Check `vision_cfg` and give the side of the input image in pixels.

    Raises:
        BadInput: the tower is of another kind (timm, ResNet, attentional pooling, ...), or a size
            makes no sense.
    """
    vision = config.get("vision_cfg")
    if not isinstance(vision, dict):
        raise BadInput(f"{where} has no vision_cfg; give an open_clip model config.")
    defaults = {field.name: field.default for field in dataclasses.fields(CLIPVisionCfg)}
    other = [
        key
        for key, value in vision.items()
        if key not in _FREE and (key not in defaults or value != defaults[key])
    ]
    if isinstance(vision.get("layers"), list):
        other.append("layers per stage (a ResNet)")
    if other:
        raise BadInput(
            f"{where} sets {some(other)} in its vision_cfg, but only a plain vision transformer "
            f"is supported; give one such as ViT-L-14."
        )
    for key in _SIZES:
        value = vision.get(key, defaults[key])
        if type(value) is not int or not 0 < value < 2**20:
            raise BadInput(f"{where} has {key} {value!r}; give an open_clip model config.")
    if vision.get("layers", 0) > _MOST_LAYERS or type(config.get("embed_dim")) is not int:
        raise BadInput(f"{where} has no usable layers or embed_dim; give an open_clip config.")
    _check_stem(vision, where)
    return _image_size(vision, where)


def _check_stem(vision: dict[str, Any], where: str) -> None:
    stem = vision.get(STEM)
    if stem is None:
        return
    fine = isinstance(stem, list) and all(
        isinstance(layer, list)
        and len(layer) == 2
        and all(type(value) is int and 0 < value < 2**14 for value in layer)
        for layer in stem
    )
    if not fine or math.prod(stride for _, stride in stem) != vision.get("patch_size", 16):
        raise BadInput(
            f"{where} has stem {stem!r}; it needs [channels, stride] for each convolution, with "
            f"strides whose product is patch_size."
        )


def _image_size(vision: dict[str, Any], where: str) -> int:
    size = vision.get("image_size", 224)
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    if type(size) is not int or not vision.get("patch_size", 16) <= size < 2**14:
        raise BadInput(
            f"{where} has image_size {size!r}; give a model for square images of at least one "
            f"patch."
        )
    return size


def check_preprocessing(
    settings: dict[str, Any], where: str
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and std, after checking that the rest is what `lite` does with images.

    Raises:
        BadInput: another resize than bicubic to the shortest side, or unusable numbers.
    """
    for key, ours in (("interpolation", "bicubic"), ("resize_mode", "shortest"), ("mode", "RGB")):
        if settings.get(key, ours) != ours:
            raise BadInput(
                f"{where} asks for {key} {settings[key]!r} where only {ours} is supported; give a "
                f"CLIP model that was trained with it."
            )
    return _three(settings, "mean", where), _three(settings, "std", where)


def _three(settings: dict[str, Any], key: str, where: str) -> tuple[float, float, float]:
    values = settings[key]
    if (
        not isinstance(values, list | tuple)
        or len(values) != 3
        or not all(type(value) in (int, float) and math.isfinite(value) for value in values)
        or (key == "std" and min(values) <= 0)
    ):
        raise BadInput(f"{where} has {key} {values!r} where three numbers belong; correct it.")
    red, green, blue = (float(value) for value in values)
    return red, green, blue
