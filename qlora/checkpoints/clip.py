"""CLIP's vision tower: open_clip's configuration, and the tensors that belong to it.

Contract: `read_clip` settles what open_clip leaves to warnings. Since 2.29 `ViT-L-14` with the
`openai` weights silently runs GELU although the weights were trained with QuickGELU; here the
pretrained tag's own word wins, and the result is a final bool in `config["quick_gelu"]`. For a
weights file the configuration decides: OpenAI's weights need `ViT-L-14-quickgelu` or a config that
says `quick_gelu`; an `open_clip_config.json` beside the file that says otherwise is an error.

Left out on purpose: the text tower (`transformer.*`, `token_embedding.weight`,
`positional_embedding`, `text_projection`, `ln_final.*`, `text.*`), the contrastive scale
(`logit_scale`, `logit_bias`), and the three sizes that OpenAI's files store as tensors.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from lite.errors import BadInput
from qlora.checkpoints.checks import check_tensors, one_line, read_json, some
from qlora.checkpoints.clip_visual import clip_visual
from qlora.checkpoints.sources import TensorSource, open_tensors, renamed
from qlora.checkpoints.views import without_module
from qlora.checkpoints.vit_config import check_preprocessing, plain_vit

_TEXT_PREFIXES = ("transformer.", "ln_final.", "text.")
_TEXT_NAMES = (
    "token_embedding.weight",
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "logit_bias",
    "input_resolution",
    "context_length",
    "vocab_size",
)
_WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class ClipCheckpoint:
    """What `read_clip` found.

    Attributes:
        config: open_clip model config: `embed_dim`, `vision_cfg`, `text_cfg`, final `quick_gelu`.
        tensors: the vision tower, named as below `visual.`: `class_embedding [width]`,
            `conv1.weight [width, 3, patch, patch]`, `transformer.resblocks.{i}.*`, ...
        image_size: side of the square input in pixels.
        mean, std: per channel, of values in [0, 1].
    """

    config: dict[str, Any]
    tensors: TensorSource
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def read_clip(name: str, weights: str) -> ClipCheckpoint:
    """Open a CLIP vision tower; tensors are read when asked for.

    Args:
        name: an open_clip model name (`ViT-L-14`), or the path of a config `.json`.
        weights: a pretrained tag of that model (`openai`, downloaded by open_clip), or the path
            of a `.safetensors`, `.bin` or `.pt` file.

    Raises:
        BadInput: the model or tag is unknown, the download fails, the tower is no plain vision
            transformer, or a tensor is missing, unexpected or of another shape.
    """
    config, preprocess = _model_config(name)
    if Path(weights).suffix in _WEIGHT_SUFFIXES or Path(weights).exists():
        file = Path(weights)
        _check_sibling(file, name, config)
    else:
        file, tag = _pretrained(name, weights)
        config["quick_gelu"] = bool(tag.get("quick_gelu", config["quick_gelu"]))
        preprocess |= {key: value for key, value in tag.items() if value is not None}
    where = name if Path(name).suffix == ".json" else f"CLIP model {name}"
    image_size = plain_vit(config, where)
    mean, std = check_preprocessing(preprocess, where)
    tensors = _visual(renamed(open_tensors(file), without_module), file)
    check_tensors(tensors, _expected_shapes(config, where), file, "CLIP checkpoint")
    return ClipCheckpoint(config, tensors, image_size, mean, std)


def _model_config(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model config with `quick_gelu` present, and the preprocessing settings."""
    if Path(name).suffix == ".json":
        raw = read_json(Path(name), "CLIP config")
        # Files named open_clip_config.json wrap the model config; open_clip's own ones do not.
        config = raw.get("model_cfg", raw)
        preprocess = raw.get("preprocess_cfg", {})
    else:
        config, preprocess = open_clip.get_model_config(name), {}
        if config is None:
            raise BadInput(
                f"open_clip knows no model called {name}; give a name such as ViT-L-14, or the "
                f"path of a config .json."
            )
    if not isinstance(config, dict) or not isinstance(preprocess, dict):
        raise BadInput(f"{name} is not an open_clip config; give one with embed_dim, vision_cfg.")
    text = config.get("text_cfg")
    # A Hugging Face text tower would be fetched when a model is built from this config; the text
    # tower is never used, so a placeholder of default sizes takes its place.
    plain_text = isinstance(text, dict) and not text.get("hf_model_name")
    settled = {
        **config,
        "text_cfg": text if plain_text else {},
        "quick_gelu": bool(config.get("quick_gelu", False)),
    }
    return settled, {
        "mean": OPENAI_DATASET_MEAN,
        "std": OPENAI_DATASET_STD,
        **{key: value for key, value in preprocess.items() if value is not None},
    }


def _pretrained(name: str, tag: str) -> tuple[Path, dict[str, Any]]:
    settings = open_clip.get_pretrained_cfg(name, tag)
    if not settings:
        known = open_clip.list_pretrained_tags_by_model(name)
        hint = f"one of its tags ({some(known, 8)}) or a weights file" if known else "a file"
        raise BadInput(f"{tag} is neither a file nor pretrained weights of {name}; give {hint}.")
    try:
        file = open_clip.download_pretrained(settings)
    # The hub client, urllib and open_clip each raise classes of their own.
    except Exception as error:
        raise BadInput(
            f"The weights {tag} of {name} cannot be downloaded ({one_line(error)}); download them "
            f"elsewhere and give the file."
        ) from error
    if not file:
        raise BadInput(f"open_clip has no download for {tag} of {name}; give a weights file.")
    return Path(file), settings


def _check_sibling(file: Path, name: str, config: dict[str, Any]) -> None:
    sibling = file.parent / "open_clip_config.json"
    if not sibling.is_file():
        return
    described, _ = _model_config(str(sibling))
    if described["quick_gelu"] != config["quick_gelu"]:
        raise BadInput(
            f"{sibling} says quick_gelu {described['quick_gelu']} for these weights but {name} "
            f"says {config['quick_gelu']}; give {sibling} as the CLIP config."
        )


def _visual(source: TensorSource, file: Path) -> TensorSource:
    def below_visual(name: str) -> str | None:
        if name.startswith("visual."):
            return name.removeprefix("visual.")
        if name in _TEXT_NAMES or name.startswith(_TEXT_PREFIXES):
            return None
        raise BadInput(
            f"{file} holds {name}, which open_clip's CLIP does not have; give weights in "
            f"open_clip's layout."
        )

    tensors = renamed(source, below_visual)
    if not len(tensors):
        raise BadInput(
            f"{file} holds no visual.* tensors; give CLIP weights in open_clip's layout."
        )
    return tensors


def _expected_shapes(config: dict[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    try:
        visual = clip_visual(config)
    # open_clip checks nothing itself: wrong sizes surface anywhere in torch.
    except Exception as error:
        raise BadInput(
            f"{where} is not a usable open_clip config ({one_line(error)}); download it again."
        ) from error
    return {name: tuple(value.shape) for name, value in visual.state_dict().items()}
