"""What the readers of whole models share: configs, a decoder inside a model, adapters.

Contract: helpers give something that was looked at, or raise `BadInput` with one sentence that
names the file and the thing. Tensor data is read only when a tensor is asked for.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.errors import BadInput
from lite.image.preprocessing import CROP, DOWN, EVEN, Preprocessing
from qlora.checkpoints.checks import read_json
from qlora.checkpoints.llama import LlamaCheckpoint
from qlora.checkpoints.lora import LoraCheckpoint
from qlora.checkpoints.sources import TensorSource, merged, renamed
from qlora.checkpoints.tokenizer_files import TokenizerFiles
from qlora.checkpoints.vit_config import check_preprocessing
from qlora.model.config import ModelConfig
from qlora.model.weights import LoraMerged, ModelWeights

_LAYER = re.compile(r"^(model\.layers\.\d+)\.")


def section(config: Mapping[str, Any], key: str, path: Path) -> dict[str, Any]:
    """A part of a `config.json` that is an object of its own."""
    value = config.get(key)
    if not isinstance(value, dict):
        raise BadInput(f"{path} has no {key}; give the config.json that belongs to the weights.")
    return value


def sizes(config: Mapping[str, Any], keys: Mapping[str, int | None], path: Path) -> dict[str, int]:
    """Whole numbers from 1 by key, with defaults where the key may be missing.

    Raises:
        BadInput: one of them is missing or makes no sense.
    """
    found = {}
    for key, default in keys.items():
        value = config.get(key, default)
        if type(value) is not int or not 0 < value < 2**20:
            raise BadInput(f"{path} has {key} {value!r} where a size belongs; download it again.")
        found[key] = value
    return found


def below(tensors: TensorSource, *prefixes: str) -> TensorSource:
    """Tensors whose names begin with one of the prefixes, without it."""

    def inner(name: str) -> str | None:
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        return None if prefix is None else name.removeprefix(prefix)

    return renamed(tensors, inner)


def epsilon(config: Mapping[str, Any], default: float, path: Path) -> float:
    """`layer_norm_eps`."""
    value = config.get("layer_norm_eps", default)
    if type(value) not in (int, float) or not 0 < value < 1:
        raise BadInput(f"{path} has layer_norm_eps {value!r}; download it again.")
    return float(value)


def preprocessing(folder: Path, size: int, fit: str) -> Preprocessing:
    """What `preprocessor_config.json` says of means and deviations, for an encoder of that size.

    Args:
        folder: where it is; without it CLIP's own numbers hold.
        size: side that the encoder takes.
        fit: how a picture becomes a square.
    """
    path = folder / "preprocessor_config.json"
    # transformers' center_crop rounds down.
    plain = Preprocessing(size, fit=fit, rounding=DOWN if fit == CROP else EVEN)
    if not path.is_file():
        return plain
    raw = read_json(path, "preprocessing config")
    if raw.get("resample", 3) != 3:  # PIL's number of bicubic
        raise BadInput(f"{path} asks for resample {raw['resample']!r}, but only 3 is computed.")
    _refuse_other_steps(raw, size, path)
    given = {
        "mean": raw.get("image_mean", list(plain.mean)),
        "std": raw.get("image_std", list(plain.std)),
    }
    mean, std = check_preprocessing(given, str(path))
    return dataclasses.replace(plain, mean=mean, std=std)


def _refuse_other_steps(raw: Mapping[str, Any], size: int, path: Path) -> None:
    """Refuse what a processor of transformers does otherwise than `lite`."""
    found = [
        f"{key} {raw[key]!r}"
        for key in ("do_resize", "do_rescale", "do_normalize")
        if raw.get(key, True) is not True
    ]
    factor = raw.get("rescale_factor", 1 / 255)
    if type(factor) not in (int, float) or abs(factor * 255 - 1) > 1e-6:
        found.append(f"rescale_factor {factor!r}")
    for key in ("size", "crop_size"):
        value = raw.get(key, size)
        sides = {*value.values()} if isinstance(value, Mapping) else {value}
        if sides != {size}:
            found.append(f"{key} {value!r}")
    if found:
        raise BadInput(
            f"{path} asks for {' and '.join(found)}, which this project does not compute for an "
            f"encoder of {size} pixels; give the file that belongs to the weights."
        )


@dataclass(frozen=True)
class OpenedParts:
    """The tensors of each part of a model, opened.

    Attributes:
        decoder: the language model.
        vision: of the vision tower, under the names of its module.
        connector: of the connector, under the names of its module.
        blocks: of gated blocks, under the names of the language model; None without blocks.
    """

    decoder: LlamaCheckpoint
    vision: TensorSource
    connector: TensorSource
    blocks: TensorSource | None = None

    def joined(self, connector: str) -> TensorSource:
        """All of them under the names of `qlora.model.VisionLanguageModel`'s parameters.

        Args:
            connector: the connector's name in the model.
        """
        return merged(
            renamed(self.vision, lambda name: f"vision_encoder.{name}"),
            renamed(self.connector, lambda name: f"{connector}.{name}"),
            renamed(self.decoder.tensors, lambda name: f"lang_encoder.{in_decoder(name)}"),
            renamed(self.blocks or merged(), lambda name: f"lang_encoder.{name}"),
        )


def in_decoder(name: str) -> str:
    """What a tensor or module of a LLaMA folder is called in our language model."""
    return _LAYER.sub(r"\1.decoder_layer.", name)


def assemble(
    config: ModelConfig,
    parts: OpenedParts,
    tokenizer: TokenizerFiles,
    folder: Path,
    *,
    special_ids: dict[str, int] | None = None,
    lora: LoraCheckpoint | None = None,
    processor: Path | None = None,
) -> ModelWeights:
    """A model of its parts.

    Args:
        config: its sizes.
        parts: its tensors.
        tokenizer: of the language model.
        folder: where the tokenizer was read.
        special_ids: of `<image>` and other added tokens; by default `<image>` is the first id after
            the vocabulary.
        lora: merged into the language model.
        processor: folder of the image processor's config, where it is another one.

    Raises:
        BadInput: the connector's width is not the language model's, or the LoRA does not fit.
    """
    connector, hidden = config.connector, config.llama.hidden_size
    if config.injection.visual_width(hidden) not in (None, connector.width):
        where = parts.connector.where(next(iter(parts.connector)))
        raise BadInput(
            f"The {connector.name} in {where} gives tokens of width {connector.width} but the "
            f"language model in {parts.decoder.folder} takes {hidden}; give the "
            f"{connector.name} that was trained with it."
        )
    base = parts.joined(connector.name)
    after = max(tokenizer.size, config.llama.vocab_size)
    return ModelWeights(
        config=config,
        base=base,
        tensors=LoraMerged(base, lora.deltas) if lora else base,
        lora=lora,
        tokenizer=tokenizer,
        special_ids=special_ids or {"<image>": after},
        llama_folder=folder,
        processor_folder=processor or folder,
    )
