"""Llama-3.2-Vision from a folder of transformers.

Contract: `read` gives the whole model of a folder of type `mllama`. Its cross-attention
layers, which transformers counts among the decoder's, become the gated blocks before the layers
that follow them; what is left is a LLaMA. Tensor names of transformers 4 and 5 are both fine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers.models.mllama.configuration_mllama import MllamaVisionConfig

from lite.bundle.attend import NEIGHBOURS
from lite.errors import BadInput
from lite.image.preprocessing import TILES, Preprocessing
from lite.image.tiles import MOST_TILES, layouts
from lite.text.template import LLAMA_3
from qlora.checkpoints.byte_level import read_byte_level
from qlora.checkpoints.checks import one_line, read_json
from qlora.checkpoints.llama import decoder_of
from qlora.checkpoints.sources import TensorSource, open_tensors, renamed
from qlora.checkpoints.translation import Translated, shapes_of, translated
from qlora.checkpoints.vit_config import check_preprocessing
from qlora.families.adapters import Outside, adapter
from qlora.families.parts import OpenedParts, assemble, below, section, sizes
from qlora.families.sizes import llama
from qlora.model.config import ModelConfig
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated_llama import GatedLlama
from qlora.model.spelling import Spelling
from qlora.model.weights import ModelWeights

FAMILY = "mllama"
MODEL_TYPES = (FAMILY,)
WHOLE = True
BEGIN, END, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<|image|>"
# Of the embedding, beyond the vocabulary: `<|image|>` and rows for more.
_ADDED_ROWS = 8
# Defaults of transformers' configuration_mllama.py, where a config leaves something out.
_TEXT: dict[str, int | None] = {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
}
_VISION = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_global_layers",
    "attention_heads",
    "image_size",
    "patch_size",
    "max_num_tiles",
    "vision_output_dim",
)
_CROSS_LAYERS = [3, 8, 13, 18, 23, 28, 33, 38]
_EPSILON, _THETA = 1e-5, 500000.0
# The bilinear filter's number in PIL.
_BILINEAR = 2
_PROJECTOR = "multi_modal_projector."
_WHAT = "Llama-3.2-Vision folder"  # in messages
_LAYER = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\.(.+)")
_IN_BLOCK = {
    "cross_attn_attn_gate": "attn_gate",
    "cross_attn_mlp_gate": "ff_gate",
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    **{f"cross_attn.{part}": part for part in ("q_proj", "k_proj", "v_proj", "o_proj")},
    **{f"cross_attn.{part}": part for part in ("q_norm", "k_norm")},
    **{f"mlp.{part}": part for part in ("gate_proj", "up_proj", "down_proj")},
}


def read(folder: Path, config: dict[str, Any], lora: Path | None = None) -> ModelWeights:
    """Open a Llama-3.2-Vision folder; tensors are read when asked for.

    Args:
        folder: as published.
        config: its `config.json`.
        lora: a PEFT adapter folder, merged into the language model and its gated blocks.

    Raises:
        BadInput: a part is missing, unexpected, of another shape, or of a kind that this project
            does not compute.
    """
    path = folder / "config.json"
    raw = section(config, "text_config", path)
    if raw.get("model_type", "mllama_text_model") != "mllama_text_model":
        raise BadInput(
            f"{path} has a text_config of type {raw['model_type']!r}; download it again."
        )
    text = sizes(raw, _TEXT, path)
    positions = _positions(raw.get("cross_attention_layers") or _CROSS_LAYERS, text, path)
    tensors = renamed(open_tensors(folder), _plain)
    encoder = _encoder(section(config, "vision_config", path), path)
    injection = _injection(raw, text, positions, path)
    connector = Projector(encoder.width, text["hidden_size"], 1, encoder.tokens)
    llama = {"rope_theta": _THETA, "rms_norm_eps": _EPSILON, **raw, **text}
    llama |= {
        "model_type": "llama",
        "num_hidden_layers": text["num_hidden_layers"] - len(positions),
    }
    language = below(tensors, "language_model.")
    tokenizer, special = read_byte_level(folder, BEGIN, END)
    own = renamed(language, lambda name: _of_decoder(name, positions))
    decoder = decoder_of(llama, own, path, folder, added=_ADDED_ROWS)
    model = ModelConfig(
        family=FAMILY,
        llama=decoder.config,
        preprocessing=_preprocessing(folder, encoder),
        encoder=encoder,
        connector=connector,
        injection=injection,
        attend=NEIGHBOURS,
        embedding_rows=decoder.embedding_rows,
        template=LLAMA_3.name,
        spelling=_spelling(positions, text["num_hidden_layers"]),
    )
    tower = below(tensors, "vision_model.")
    vision = translated(tower, shapes_of(encoder.build), str, folder, _WHAT)
    projector = _projector(below(tensors, _PROJECTOR), connector, folder)
    outside = (
        Outside("vision_encoder", ("model.vision_model", "vision_model"), vision),
        Outside(
            connector.name, ("model.multi_modal_projector", "multi_modal_projector"), projector
        ),
    )
    parts = OpenedParts(decoder, vision, projector, _blocks(language, model, positions, folder))
    return assemble(
        model,
        parts,
        tokenizer,
        folder,
        special_ids=special | {"<image>": _image_id(config, special, text["vocab_size"], path)},
        lora=adapter(
            lora, lambda module: _module(module, positions, text["num_hidden_layers"]), outside
        ),
    )


def _plain(name: str) -> str:
    """A tensor's name as transformers 4 spelled it."""
    name = name.removeprefix("model.")
    if name == "lm_head.weight" or not name.startswith("language_model."):
        return f"language_model.{name}" if name == "lm_head.weight" else name
    inner = name.removeprefix("language_model.")
    return (
        f"language_model.{inner if inner.startswith(('model.', 'lm_head.')) else 'model.' + inner}"
    )


def _positions(layers: object, text: dict[str, int], path: Path) -> dict[int, int]:
    """Cross-attention layer -> the LLaMA layer that it stands before, counted without such layers.

    Raises:
        BadInput: it is not followed by a layer with self-attention.
    """
    count = text["num_hidden_layers"]
    if (
        not isinstance(layers, list)
        or any(type(layer) is not int for layer in layers)
        or sorted({*layers}) != layers
        or not all(0 <= layer < count - 1 and layer + 1 not in layers for layer in layers)
    ):
        raise BadInput(
            f"{path} has cross_attention_layers {layers!r}, where each must stand before one of "
            f"the {count} layers that has self-attention; download it again."
        )
    return {layer: layer - before for before, layer in enumerate(layers)}


def _encoder(config: dict[str, Any], path: Path) -> TiledEncoder:
    try:
        vision = MllamaVisionConfig(**config)
    # transformers validates with classes of its own.
    except Exception as error:
        raise BadInput(
            f"{path} has no usable vision_config ({one_line(error)}); download it again."
        ) from error
    found = sizes({key: getattr(vision, key) for key in _VISION}, dict.fromkeys(_VISION), path)
    outputs, known = (
        vision.intermediate_layers_indices,
        layouts(min(vision.max_num_tiles, MOST_TILES)),
    )
    encoder = TiledEncoder(vision)
    fits = (
        found["hidden_size"] % found["attention_heads"] == 0
        and found["patch_size"] <= found["image_size"]
        and all(0 <= i < found["num_hidden_layers"] for i in outputs)
        and found["vision_output_dim"] == found["hidden_size"] * (1 + len(outputs))
        and [tuple(shape) for shape in vision.supported_aspect_ratios] == known
        # transformers pads a tile's tokens to a multiple of 8, and is wrong where they are one.
        and encoder.tile_tokens % 8
    )
    if not fits:
        raise BadInput(f"The sizes of the vision tower in {path} do not fit; download it again.")
    if vision.hidden_act != "gelu":
        raise BadInput(
            f"{path} asks for the activation {vision.hidden_act!r} in the vision tower, which this "
            f"project does not compute; give a model with gelu."
        )
    return encoder


def _injection(
    raw: dict[str, Any], text: dict[str, int], positions: dict[int, int], path: Path
) -> GatedLlama:
    heads, kv_heads = text["num_attention_heads"], text["num_key_value_heads"]
    epsilon = raw.get("rms_norm_eps", _EPSILON)
    if text["hidden_size"] % heads or heads % kv_heads:
        raise BadInput(f"The sizes in {path} do not fit each other; download it again.")
    if type(epsilon) not in (int, float) or not 0 < epsilon < 1:
        raise BadInput(f"{path} has rms_norm_eps {epsilon!r}; download it again.")
    return GatedLlama(
        layers=tuple(positions.values()),
        heads=heads,
        kv_heads=kv_heads,
        dim_head=text["hidden_size"] // heads,
        inner=text["intermediate_size"],
        head_norms=True,
        gates=1,
        epsilon=float(epsilon),
        always=False,
    )


def _image_id(config: dict[str, Any], special: dict[str, int], vocabulary: int, path: Path) -> int:
    image = config.get("image_token_index", special.get(IMAGE, vocabulary))
    if type(image) is not int or not 0 <= image < vocabulary + _ADDED_ROWS:
        raise BadInput(f"{path} gives {IMAGE} the id {image!r}; download it again.")
    return image


def _of_decoder(name: str, positions: dict[int, int]) -> str | None:
    """The name in a LLaMA without cross-attention layers; None for what is theirs."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    layer = int(match[1])
    return None if layer in positions else f"model.layers.{_counted(layer, positions)}.{match[2]}"


def _counted(layer: int, positions: dict[int, int]) -> int:
    """The number of a layer with self-attention among its like."""
    return layer - sum(other < layer for other in positions)


def _projector(tensors: TensorSource, c: Projector, folder: Path) -> Translated:
    """One linear layer, which the folder does not number."""
    shapes = shapes_of(c.build)
    return translated(tensors, shapes, lambda name: name.removeprefix("layers.0."), folder, _WHAT)


def _blocks(
    language: TensorSource, model: ModelConfig, positions: dict[int, int], folder: Path
) -> TensorSource:
    """The cross-attention layers under the names of `GatedLlamaBlock`."""
    block = shapes_of(lambda: model.injection.block(model.llama.hidden_size, model.dim_visual))
    spelled = {ours: theirs for theirs, ours in _IN_BLOCK.items()}
    shapes: dict[str, tuple[int, ...]] = {}
    theirs: dict[str, str] = {}
    for layer, before in positions.items():
        for name, shape in block.items():
            ours, part = f"{_block(before)}.{name}", name.removesuffix(".weight")
            shapes[ours] = shape
            theirs[ours] = f"model.layers.{layer}.{spelled[part]}{name.removeprefix(part)}"

    def of_block(name: str) -> str | None:
        match = _LAYER.fullmatch(name)
        return name if match and int(match[1]) in positions else None

    return translated(renamed(language, of_block), shapes, theirs.__getitem__, folder, _WHAT)


def _spelling(positions: dict[int, int], layers: int) -> Spelling:
    name = "model.language_model.layers.{}".format
    return Spelling(
        layers=tuple(name(i) for i in range(layers) if i not in positions),
        blocks={before: name(layer) for layer, before in positions.items()},
        in_block={ours: theirs for theirs, ours in _IN_BLOCK.items()},
    )


def _block(layer: int) -> str:
    return f"model.layers.{layer}.gated_cross_attn_layer"


def _module(module: str, positions: dict[int, int], layers: int) -> str | None:
    """Our path of a linear layer as transformers counts it; ours itself passes."""
    match = _LAYER.fullmatch(module)
    if match is None or match[2].startswith(("gated_cross_attn_layer.", "decoder_layer.")):
        return module if match else None
    layer = int(match[1])
    if layer in positions:
        inside = _IN_BLOCK.get(match[2])
        return None if inside is None else f"{_block(positions[layer])}.{inside}"
    counted = _counted(layer, positions)
    return f"model.layers.{counted}.decoder_layer.{match[2]}" if layer < layers else None


def _preprocessing(folder: Path, encoder: TiledEncoder) -> Preprocessing:
    size, tiles = encoder.vision.image_size, encoder.vision.max_num_tiles
    plain = Preprocessing(size, fit=TILES, tiles=tiles)
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return plain
    raw = read_json(path, "preprocessing config")
    ours = {
        "resample": _BILINEAR,
        "max_image_tiles": tiles,
        "size": {"height": size, "width": size},
    }
    for key, value in ours.items():
        if raw.get(key, value) != value:
            raise BadInput(f"{path} asks for {key} {raw[key]!r}, but only {value} is computed.")
    given = {
        "mean": raw.get("image_mean", list(plain.mean)),
        "std": raw.get("image_std", list(plain.std)),
    }
    mean, std = check_preprocessing(given, str(path))
    return Preprocessing(size, mean, std, TILES, tiles)


_TILED = TiledEncoder(MllamaVisionConfig())
# Of what is published (`qlora.families.models`), before it is downloaded.
SIZES = {
    "llama-3.2-11b-vision": ModelConfig(
        family=FAMILY,
        llama=llama(
            4096, 32, 32, 14336, num_key_value_heads=8, vocab_size=128256, rms_norm_eps=1e-5
        ),
        preprocessing=Preprocessing(
            _TILED.vision.image_size, fit=TILES, tiles=_TILED.vision.max_num_tiles
        ),
        encoder=_TILED,
        connector=Projector(dim_media=_TILED.width, width=4096, depth=1, latents=_TILED.tokens),
        injection=GatedLlama(
            # Layers 3, 8, 13 and so on of 40, counted without each other.
            layers=tuple(range(3, 32, 4)),
            heads=32,
            kv_heads=8,
            dim_head=128,
            inner=14336,
            head_norms=True,
            gates=1,
            epsilon=1e-5,
            always=False,
        ),
        attend=NEIGHBOURS,
        embedding_rows=128256 + 8,
        template=LLAMA_3.name,
    )
}
