"""Vision towers of whole models, under open_clip's parameter names.

Contract: towers differ in how they spell their parts and in how queries, keys and values are kept;
`TowerNames` says both, and `tower_tensors` gives the one tower that
`qlora.model.encoders.clip` computes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lite.errors import BadInput
from qlora.checkpoints.sources import TensorSource, renamed
from qlora.checkpoints.translation import Joined, Translated, shapes_of, translated
from qlora.families.parts import sizes
from qlora.model.encoders.clip import ClipEncoder


@dataclass(frozen=True)
class TowerNames:
    """How a tower spells its parts; those of a layer are below `encoder.layers.{i}.`.

    Attributes:
        class_token, positions: of the embeddings, in any shape of the right number of values.
        leading: axes of length 1 that both have in front.
        patches, ln_pre, ln_post: modules.
        ln_1, ln_2, attention, out: modules of a layer; `attention` is one fused projection, or
            those of queries, keys and values.
        join: from the attention's tensors and the number of heads to one tensor `[3 * W, ...]`.
    """

    class_token: str
    positions: str
    leading: tuple[int, int]
    patches: str
    ln_pre: str
    ln_post: str
    ln_1: str
    ln_2: str
    attention: tuple[str, ...]
    out: str
    join: Callable[[int, tuple[Tensor, ...]], Tensor]


def _contiguous(heads: int, fused: tuple[Tensor, ...]) -> Tensor:
    """Rows from (head, q/k/v, d) to (q/k/v, head, d)."""
    return fused[0].unflatten(0, (heads, 3, -1)).transpose(0, 1).flatten(0, 2)


# X-PLUG/mPLUG-Owl at 0f3068f: query, key and value of one head are side by side.
OWL_TOWER = TowerNames(
    class_token="embeddings.cls_token",
    positions="embeddings.position_embedding",
    leading=(2, 1),
    patches="embeddings.patch_embed",
    ln_pre="embeddings.pre_layernorm",
    ln_post="post_layernorm",
    ln_1="input_layernorm",
    ln_2="post_attention_layernorm",
    attention=("self_attn.query_key_value",),
    out="self_attn.dense",
    join=_contiguous,
)
# transformers' CLIPVisionModel; the spelling of `pre_layrnorm` is its own.
CLIP_TOWER = TowerNames(
    class_token="embeddings.class_embedding",
    positions="embeddings.position_embedding.weight",
    leading=(0, 0),
    patches="embeddings.patch_embedding",
    ln_pre="pre_layrnorm",
    ln_post="post_layernorm",
    ln_1="layer_norm1",
    ln_2="layer_norm2",
    attention=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    out="self_attn.out_proj",
    join=lambda heads, parts: torch.cat(parts),
)
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_OUR_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)")


def tower_config(
    config: Mapping[str, Any], defaults: Mapping[str, int | None], path: Path
) -> dict[str, Any]:
    """The open_clip model config of a tower that transformers' CLIP keys describe.

    Args:
        config: with `hidden_size`, `num_hidden_layers` and so on.
        defaults: of those that may be missing.
        path: the file, for messages.

    Raises:
        BadInput: a size is missing or makes no sense, or the activation is another one.
    """
    keys = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    found = sizes(config, {key: defaults.get(key) for key in (*keys, *_IMAGE)}, path)
    width, inner, layers, heads = (found[key] for key in keys)
    if width % heads or found["image_size"] < found["patch_size"] or layers > 1000:
        raise BadInput(f"The sizes of the vision tower in {path} do not fit; download it again.")
    activation = config.get("hidden_act", "quick_gelu")
    if activation not in ("quick_gelu", "gelu"):
        raise BadInput(
            f"{path} asks for the activation {activation!r} in the vision tower, which this "
            f"project does not compute; give a model with quick_gelu or gelu."
        )
    ratio = inner / width
    return {
        "embed_dim": width,  # of the projection, which is not used
        "quick_gelu": activation == "quick_gelu",
        "vision_cfg": {
            "image_size": found["image_size"],
            "layers": layers,
            "width": width,
            "head_width": width // heads,
            "patch_size": found["patch_size"],
            # open_clip rounds the product down.
            "mlp_ratio": ratio if int(width * ratio) == inner else (inner + 0.5) / width,
        },
        # The text tower is never used: the smallest that open_clip builds.
        "text_cfg": {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1},
    }


_IMAGE = ("image_size", "patch_size")


def tower_tensors(
    tensors: TensorSource, encoder: ClipEncoder, names: TowerNames, folder: Path
) -> Translated:
    """The tower's parameters; what the encoder has no use for is left out.

    That is layers after the last one that is used, `ln_post` where tokens do not pass it, and the
    buffer `position_ids`.

    Raises:
        BadInput: a tensor is missing, unexpected or of another shape.
    """
    vision = encoder.clip["vision_cfg"]
    layers, heads = vision["layers"], vision["width"] // vision["head_width"]

    def used(name: str) -> str | None:
        layer = _LAYER.match(name)
        unused = name == "embeddings.position_ids" or (layer and int(layer[1]) >= layers)
        unused = unused or (name.startswith(f"{names.ln_post}.") and not encoder.final_norm)
        return None if unused else name

    tensors = renamed(tensors, used)
    theirs = partial(_kept_as, names, heads)
    what = "folder of the vision tower"
    return translated(tensors, shapes_of(encoder.build), theirs, folder, what)


def unused_layer(encoder: ClipEncoder) -> Callable[[str], bool]:
    """Whether a module of the tower is of a layer after the last one whose output is used."""

    def unused(module: str) -> bool:
        layer = _LAYER.match(module)
        return layer is not None and int(layer[1]) >= encoder.clip["vision_cfg"]["layers"]

    return unused


def _kept_as(names: TowerNames, heads: int, ours: str) -> str | Joined:
    """How a tower of these names keeps open_clip's parameter `ours`."""
    if ours == "class_embedding":
        return Joined((names.class_token,), leading=names.leading[0])
    if ours == "positional_embedding":
        return Joined((names.positions,), leading=names.leading[1])
    outside = {"conv1": names.patches, "ln_pre": names.ln_pre, "ln_post": names.ln_post}
    match = _OUR_LAYER.fullmatch(ours)
    if match is None:
        module, _, kind = ours.rpartition(".")
        return f"{outside[module]}.{kind}"
    # Within a layer.
    layer, inside = f"encoder.layers.{match[1]}", match[2]
    if inside.startswith("attn.in_proj_"):
        kind = inside.removeprefix("attn.in_proj_")
        parts = tuple(f"{layer}.{part}.{kind}" for part in names.attention)
        return Joined(parts, make=lambda *tensors: names.join(heads, tensors))
    module, _, kind = inside.rpartition(".")
    spelled = {
        "ln_1": names.ln_1,
        "ln_2": names.ln_2,
        "attn.out_proj": names.out,
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    return f"{layer}.{spelled[module]}.{kind}"
