"""LLaVA, from the folders of its own repository and of transformers.

Contract: `read` gives the whole model of either layout. Both say `model_type: llava`; what
tells them apart is whether `config.json` names a tower (`mm_vision_tower`) or describes one.

The original layout keeps the parts in several places, and all are looked at: the language model in
the folder itself or, where the folder holds a projector or a LoRA only, in the base that is given
beside it; the projector among the weights, in `mm_projector.bin`, or in
`non_lora_trainables.bin`; the vision tower in a folder of transformers' CLIP that is given or that
`mm_vision_tower` names. LVIS-Instruct4V's models are LLaVA-1.5 with other weights.

Left out on purpose: layers of the tower after the one whose output is used, its last norm, and the
`quantization_config` that QLoRA runs leave in the configs of plain weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lite.bundle.attend import OWN
from lite.errors import BadInput
from lite.image.preprocessing import CROP, PAD, Preprocessing
from lite.text.template import LLAVA_V1
from qlora.checkpoints.checks import check_tensors, read_json
from qlora.checkpoints.hub import resolve
from qlora.checkpoints.llama import decoder_of
from qlora.checkpoints.lora import LoraCheckpoint, refuse_adapter_beside
from qlora.checkpoints.sources import TensorSource, open_tensors, renamed
from qlora.checkpoints.tokenizer_files import TokenizerFiles, read_tokenizer
from qlora.checkpoints.translation import Translated, shapes_of
from qlora.families.adapters import Outside, adapter
from qlora.families.parts import (
    OpenedParts,
    assemble,
    below,
    epsilon,
    preprocessing,
    section,
)
from qlora.families.sizes import LLAMA_7B, clip
from qlora.families.towers import CLIP_TOWER, tower_config, tower_tensors, unused_layer
from qlora.model.config import ModelConfig
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.spliced import Spliced
from qlora.model.spelling import Spelling
from qlora.model.weights import ModelWeights

MODEL_TYPES = ("llava", "llava_llama")
WHOLE = False  # language model and tower may stand elsewhere
FAMILY = "llava"
# Defaults of transformers' CLIPVisionConfig, where a config leaves a size out.
_CLIP: dict[str, int | None] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
}
# Tokens that the layouts add to LLaMA's own.
_ADDED = ("<image>", "<pad>", "[PAD]", "<im_patch>", "<im_start>", "<im_end>")
_PROJECTOR = "model.mm_projector."
_OWN_TOWER = "model.vision_tower.vision_tower."
# Where the original repository's trainers put the projector, or a LoRA's other parameters.
_BESIDES = ("non_lora_trainables.bin", "mm_projector.bin")
_PROJECTOR_TYPE = re.compile(r"linear|mlp(\d+)x_gelu")
# Spellings of transformers 4.31 to 5, newest first.
_TOWERS = ("model.vision_tower.", "vision_tower.")
_PROJECTORS = ("model.multi_modal_projector.", "multi_modal_projector.")
# The same as modules, and what DeepSpeed and peft runs of the original call them.
_TOWER_MODULES = (
    *("model.vision_tower.vision_tower.vision_model", "model.vision_tower.vision_model"),
    *("vision_tower.vision_model", "model.vision_tower", "vision_tower"),
)
_PROJECTOR_MODULES = ("model.multi_modal_projector", "multi_modal_projector")
_LINEARS = re.compile(r"layers\.(\d+)")
_LANGUAGE = ("language_model.", "model.language_model.", "lm_head.")


def read(
    folder: Path,
    config: dict[str, Any],
    lora: Path | None = None,
    base: Path | None = None,
    tower: str | None = None,
) -> ModelWeights:
    """Open a LLaVA folder; tensors are read when asked for.

    Args:
        folder: of either layout.
        config: its `config.json`.
        lora: an adapter to merge, other than one that is in the folder itself.
        base: the language model of a folder that holds a projector or a LoRA only.
        tower: folder (or hub id) of the vision tower in place of `mm_vision_tower`.

    Raises:
        BadInput: a part is missing, unexpected, of another shape, or of a kind of LLaVA that this
            project does not compute.
    """
    path = folder / "config.json"
    if "mm_vision_tower" in config:
        return _read_original(folder, config, lora, base, tower)
    refuse_adapter_beside(folder, lora)
    if base is not None or tower is not None:
        raise BadInput(f"{folder} holds a whole model; leave its language model and tower out.")
    tensors = open_tensors(folder)
    _refuse_strange(tensors, folder, (*_TOWERS, *_PROJECTORS, *_LANGUAGE))
    encoder = _encoder(
        section(config, "vision_config", path),
        path,
        config.get("vision_feature_layer", -2),
        config.get("vision_feature_select_strategy", "default") == "full",
    )
    if config.get("projector_hidden_act", "gelu") != "gelu":
        raise BadInput(f"{path} asks for another projector_hidden_act than gelu; give LLaVA-1.5.")
    projector = _numbered(
        below(tensors, *_PROJECTORS), r"linear_(\d+)\.(weight|bias)", lambda n: n - 1
    )
    vision = _tower(below(tensors, *_TOWERS), encoder, folder)
    numbered = {name: _LINEARS.sub(lambda m: f"linear_{int(m[1]) + 1}", name) for name in projector}
    outside = (
        Outside("vision_encoder", _TOWER_MODULES, vision, unused_layer(encoder)),
        Outside("projector", _PROJECTOR_MODULES, Translated(projector, numbered)),
    )
    image = config.get("image_token_index", config.get("image_token_id", 32000))
    if type(image) is not int or not 0 <= image < 2**31:
        raise BadInput(f"{path} has image_token_index {image!r}; download it again.")
    return _assembled(
        folder=folder,
        parts=OpenedParts(
            decoder_of(_text_config(config, path), _language(tensors), path, folder),
            vision=vision,
            connector=projector,
        ),
        tokenizer=read_tokenizer(folder, _ADDED),
        depth=2,
        encoder=encoder,
        fit=PAD if _pads(folder) else CROP,
        image=image,
        layers="model.language_model.layers",
        lora=adapter(lora, outside=outside),
    )


def _read_original(
    folder: Path, config: dict[str, Any], lora: Path | None, base: Path | None, tower: str | None
) -> ModelWeights:
    path = folder / "config.json"
    depth = _check_original(config, path)
    where = base or folder
    if base is None and _lacks_language(folder):
        raise BadInput(
            f"{folder} holds a projector without its language model; give the folder of that "
            f"beside it (--llama)."
        )
    if base is None and (folder / "adapter_config.json").is_file():
        raise BadInput(
            f"{folder} holds a LoRA without its language model; give the folder of that beside it "
            f"(--llama)."
        )
    if (folder / "adapter_config.json").is_file():
        if lora is not None:
            raise BadInput(f"{folder} holds a LoRA of its own, so {lora} cannot be merged too.")
        lora = folder
    tensors = open_tensors(where, besides=_BESIDES)
    raw = config if base is None else read_json(base / "config.json", "LLaMA config")
    outside = (_PROJECTOR, _OWN_TOWER)
    language = renamed(tensors, lambda name: None if name.startswith(outside) else name)
    # The original's own model types are LLaMA with a projector.
    kind = {} if raw.get("model_type") not in MODEL_TYPES else {"model_type": "llama"}
    decoder = decoder_of(_unquantized(raw) | kind, language, where / "config.json", where)
    tower_folder = _tower_folder(folder, config["mm_vision_tower"], tower)
    # Full fine-tunes save the tower with the rest, trained or not, under the names of its wrappers.
    own_tower = below(tensors, _OWN_TOWER)
    vision, vision_path = _clip_config(tower_folder)
    encoder = _encoder(
        vision,
        vision_path,
        config.get("mm_vision_select_layer", -2),
        config.get("mm_vision_select_feature", "patch") == "cls_patch",
    )
    tower_parts = _tower(own_tower or _clip_tensors(tower_folder), encoder, tower_folder)
    has_tokenizer = any((folder / n).is_file() for n in ("tokenizer.model", "tokenizer.json"))
    return _assembled(
        folder=folder if has_tokenizer else where,
        parts=OpenedParts(
            decoder,
            vision=tower_parts,
            connector=_original_projector(folder, tensors, depth),
        ),
        tokenizer=read_tokenizer(folder if has_tokenizer else where, _ADDED),
        depth=depth,
        encoder=encoder,
        fit=PAD if config.get("image_aspect_ratio") == "pad" else CROP,
        image=None,
        layers="model.layers",  # of LlavaLlamaForCausalLM
        lora=adapter(
            lora,
            outside=(
                Outside("vision_encoder", _TOWER_MODULES, tower_parts, unused_layer(encoder)),
            ),
        ),
        pixels=tower_folder,
    )


def _lacks_language(folder: Path) -> bool:
    """Whether a projector is all that a folder holds."""
    found = {path.name for kind in ("bin", "safetensors") for path in folder.glob(f"*.{kind}")}
    return bool(found) and found <= {*_BESIDES, "training_args.bin"}


def _assembled(
    *,
    folder: Path,
    parts: OpenedParts,
    tokenizer: TokenizerFiles,
    depth: int,
    encoder: ClipEncoder,
    fit: str,
    image: int | None,
    lora: LoraCheckpoint | None,
    layers: str,
    pixels: Path | None = None,
) -> ModelWeights:
    connector = _projector(parts.connector, depth, encoder, folder)
    count = parts.decoder.config.num_hidden_layers
    model = ModelConfig(
        family=FAMILY,
        llama=parts.decoder.config,
        preprocessing=preprocessing(pixels or folder, encoder.image_size, fit),
        encoder=encoder,
        connector=connector,
        injection=Spliced(),
        attend=OWN,
        embedding_rows=parts.decoder.embedding_rows,
        template=LLAVA_V1.name,
        spelling=Spelling(tuple(f"{layers}.{i}" for i in range(count))),
    )
    special_ids = None if image is None else {"<image>": image}
    return assemble(
        model, parts, tokenizer, folder, special_ids=special_ids, lora=lora, processor=pixels
    )


def _check_original(config: dict[str, Any], path: Path) -> int:
    """Refuse the kinds of LLaVA that are not computed; gives the projector's depth."""
    kind = config.get("mm_projector_type", "linear")
    match = _PROJECTOR_TYPE.fullmatch(kind) if isinstance(kind, str) else None
    found = []
    if match is None:
        found.append(f"mm_projector_type {kind!r}")
    if config.get("mm_use_im_start_end"):
        found.append("mm_use_im_start_end")
    if config.get("image_aspect_ratio") not in (None, "square", "pad"):
        found.append(f"image_aspect_ratio {config['image_aspect_ratio']!r}")
    if config.get("mm_vision_select_feature", "patch") not in ("patch", "cls_patch"):
        found.append(f"mm_vision_select_feature {config['mm_vision_select_feature']!r}")
    if found or match is None:
        raise BadInput(
            f"{path} asks for {' and '.join(found)}, which this project does not compute; give "
            f"LLaVA-1.5, or a LLaVA v1 without start and end tokens around images."
        )
    return int(match[1] or 1)


def _text_config(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """The configuration of the language model alone, as transformers reads it."""
    text = {"model_type": "llama", **section(config, "text_config", path)}
    # Either may tie the head to the embedding (configuration_llava.py).
    tied = bool(config.get("tie_word_embeddings")) or bool(text.get("tie_word_embeddings"))
    return _unquantized(text) | {"tie_word_embeddings": tied}


def _unquantized(raw: dict[str, Any]) -> dict[str, Any]:
    """Without `quantization_config`, which QLoRA runs leave beside plain weights.

    Weights that are quantized are found by their names (`qlora.checkpoints.layouts`).
    """
    return {**raw, "quantization_config": None}


def _encoder(config: dict[str, Any], path: Path, layer: object, keep_class: bool) -> ClipEncoder:
    clip = tower_config(config, _CLIP, path)
    layers = clip["vision_cfg"]["layers"]
    used = layer if type(layer) is int else 0
    used = used + layers + 1 if used < 0 else used  # the states before and after each layer
    if not 0 < used <= layers:
        raise BadInput(
            f"The vision features are those of layer {layer!r}, but the tower in {path} has "
            f"{layers} layers; give files that belong together."
        )
    clip["vision_cfg"]["layers"] = used
    return ClipEncoder(clip, keep_class=keep_class, epsilon=epsilon(config, 1e-5, path))


def _tower(tensors: TensorSource, encoder: ClipEncoder, folder: Path) -> Translated:
    """transformers before 5 has a level more in the names."""
    inner = renamed(tensors, lambda name: name.removeprefix("vision_model."))
    return tower_tensors(inner, encoder, CLIP_TOWER, folder)


def _tower_folder(folder: Path, named: object, given: str | None) -> Path:
    if given is not None:
        return resolve(given, "clip")
    if not isinstance(named, str) or not named:
        raise BadInput(f"{folder / 'config.json'} names no vision tower; give it (--clip).")
    beside = folder / named
    return beside if beside.is_dir() else resolve(named, "clip")


def _clip_config(folder: Path) -> tuple[dict[str, Any], Path]:
    path = folder / "config.json"
    config = read_json(path, "config of the vision tower")
    kind = config.get("model_type")
    if kind == "clip":
        config = section(config, "vision_config", path)
    elif kind != "clip_vision_model":
        raise BadInput(
            f"{path} describes a model of type {kind!r}, not a CLIP; give the vision tower that "
            f"the LLaVA was trained with."
        )
    return config, path


def _clip_tensors(folder: Path) -> TensorSource:
    """Of a whole CLIP, text tower, projections and scale are left out."""
    text = ("text_model.", "visual_projection.", "text_projection.", "logit_scale")
    return renamed(open_tensors(folder), lambda name: None if name.startswith(text) else name)


def _language(tensors: TensorSource) -> TensorSource:
    """The language model under LLaMA's own names."""

    def inner(name: str) -> str | None:
        if name.startswith("model.language_model."):
            return "model." + name.removeprefix("model.language_model.")
        if name.startswith(("language_model.", "lm_head.")):
            return name.removeprefix("language_model.")
        return None

    return renamed(tensors, inner)


def _refuse_strange(tensors: TensorSource, folder: Path, prefixes: tuple[str, ...]) -> None:
    for name in tensors:
        if not name.startswith(prefixes):
            raise BadInput(
                f"{folder} holds {name}, which LLaVA does not have; give the folder as published."
            )


def _original_projector(folder: Path, tensors: TensorSource, depth: int) -> TensorSource:
    """The projector's tensors, from wherever the run that made them put them."""
    source = below(tensors, _PROJECTOR)
    for name in _BESIDES:
        if (folder / name).is_file():
            # The one beside a LoRA was trained further than what the base may hold.
            source = _unwrapped(open_tensors(folder / name), folder / name)
            break
    if not len(source):
        raise BadInput(
            f"{folder} has no projector, neither among its weights nor as mm_projector.bin or "
            f"non_lora_trainables.bin; give the folder that training wrote at its end."
        )
    if depth == 1:
        return renamed(source, lambda name: f"layers.0.{name}")
    return _numbered(source, r"(\d+)\.(weight|bias)", lambda n: n // 2)


def _unwrapped(source: TensorSource, path: Path) -> TensorSource:
    """The names below `mm_projector.`, whatever trainers put in front of it."""

    def inner(name: str) -> str:
        _, found, rest = name.rpartition("mm_projector.")
        if not found:
            raise BadInput(
                f"{path} holds {name}, which is no part of the projector; give the file of a run "
                f"that trained a projector and a LoRA only."
            )
        return rest

    return renamed(source, inner)


def _numbered(source: TensorSource, pattern: str, number: Any) -> TensorSource:
    """Layers of a projector under the names of its module."""

    def inner(name: str) -> str:
        match = re.fullmatch(pattern, name)
        return f"layers.{number(int(match[1]))}.{match[2]}" if match else name

    return renamed(source, inner)


def _projector(source: TensorSource, depth: int, encoder: ClipEncoder, folder: Path) -> Projector:
    """The projector of these tensors, checked against the encoder before it."""
    for name in ("layers.0.weight", f"layers.{depth - 1}.weight"):
        if name not in source or len(source.shape(name)) != 2:
            raise BadInput(
                f"The projector of {folder} is missing or incomplete; give the complete folder."
            )
    width, dim_media = source.shape("layers.0.weight")
    if dim_media != encoder.width:
        raise BadInput(
            f"The projector in {source.where('layers.0.weight')} takes tokens of width {dim_media} "
            f"but the vision tower gives {encoder.width}; give the tower that it was trained with."
        )
    projector = Projector(dim_media, width, depth, encoder.tokens, "layers.0.bias" in source)
    check_tensors(source, shapes_of(projector.build), folder, "projector of")
    return projector


def _pads(folder: Path) -> bool:
    path = folder / "preprocessor_config.json"
    return path.is_file() and bool(read_json(path, "preprocessing config").get("do_pad"))


# Of what is published (`qlora.families.models`), before it is downloaded.
SIZES = {
    "llava-1.5-7b": ModelConfig(
        family=FAMILY,
        llama=LLAMA_7B,
        preprocessing=Preprocessing(336, fit=PAD),
        # The last layer's output is not used.
        encoder=ClipEncoder(clip(1024, 23, 336)),
        connector=Projector(dim_media=1024, width=4096, depth=2, latents=576),
        injection=Spliced(),
        attend=OWN,
        embedding_rows=LLAMA_7B.vocab_size + 3,
        template=LLAVA_V1.name,
    )
}
