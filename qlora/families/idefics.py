"""IDEFICS from a folder of transformers.

Contract: `read` gives the whole model of a folder of type `idefics` with a perceiver
resampler. Embeddings and head of added tokens, which lie in tables of their own, are joined to
LLaMA's, so these tokens are ids like all others.

Left out on purpose: `rotary_emb.inv_freq` buffers and the tower's last norm, which tokens never
pass.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from lite.bundle.attend import PRECEDING
from lite.errors import BadInput
from lite.image.preprocessing import SQUASH, Preprocessing
from lite.text.template import IDEFICS
from qlora.checkpoints.checks import check_tensors, read_json
from qlora.checkpoints.llama import decoder_of
from qlora.checkpoints.sources import TensorSource, merged, open_tensors, renamed
from qlora.checkpoints.tokenizer_files import TokenizerFiles, read_tokenizer
from qlora.checkpoints.translation import (
    Computed,
    ComputedTensors,
    Joined,
    Translated,
    shapes_of,
    translated,
)
from qlora.families.adapters import Outside, adapter
from qlora.families.parts import (
    OpenedParts,
    assemble,
    below,
    epsilon,
    preprocessing,
    section,
    sizes,
)
from qlora.families.sizes import LLAMA_7B, clip
from qlora.families.towers import CLIP_TOWER, tower_config, tower_tensors, unused_layer
from qlora.model.config import ModelConfig
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.gated_llama import GatedLlama
from qlora.model.spelling import Spelling
from qlora.model.weights import ModelWeights

FAMILY = "idefics"
MODEL_TYPES = (FAMILY,)
WHOLE = True
FAKE, IMAGE, END = "<fake_token_around_image>", "<image>", "<end_of_utterance>"
_ADDED = (FAKE, IMAGE, END, "<pad>")
# Defaults of transformers' configuration_idefics.py, where a config leaves a size out.
_TEXT: dict[str, int | None] = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "cross_layer_interval": 1,
}
_VISION: dict[str, int | None] = {
    "hidden_size": 768,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
_PERCEIVER: dict[str, int | None] = {
    "resampler_n_latents": 64,
    "resampler_depth": 6,
    "resampler_n_heads": 16,
    "resampler_head_dim": 96,
}
_TABLES = {
    "model.embed_tokens.weight": "model.embed_tokens.additional_embedding.weight",
    "lm_head.weight": "lm_head.additional_fc.weight",
}
_BLOCK = "model.gated_cross_attn_layers."
_PARTS = ("model.vision_model.", "model.perceiver_resampler.", _BLOCK)
# Modules of a gated block and of a layer of the resampler: ours -> theirs.
_IN_BLOCK = {
    "input_layernorm": "input_layernorm",
    "post_attention_layernorm": "post_attention_layernorm",
    **{f"{side}_proj": f"cross_attn.{side}_proj" for side in "qkvo"},
    **{f"{side}_norm": f"cross_attn.{side}_layer_norm" for side in "qk"},
    **{f"{part}_proj": f"mlp.{part}_proj" for part in ("gate", "up", "down")},
    "attn_gate": "alpha_cross_attn",
    "ff_gate": "alpha_dense",
}
_RESAMPLER_LAYER = re.compile(r"layers\.(\d+)\.(.+)")
_IN_RESAMPLER = {
    "0.norm_media": "0.context_layer_norm",
    "0.norm_latents": "0.latents_layer_norm",
    "0.q_norm": "0.q_layer_norm",
    "0.k_norm": "0.k_layer_norm",
    "0.to_q": "0.q_proj",
    "0.to_out": "0.output_proj",
    "1.0": "1.ln",
    "1.1": "1.fc",
    "1.3": "1.c_proj",
}
_BLOCK_LINEAR = re.compile(rf"{re.escape(_BLOCK)}(\d+)\.(?:cross_attn|mlp)\.(\w+)")


def read(folder: Path, config: dict[str, Any], lora: Path | None = None) -> ModelWeights:
    """Open an IDEFICS folder; tensors are read when asked for.

    Args:
        folder: as published.
        config: its `config.json`.
        lora: a PEFT adapter folder, merged into the language model and its gated blocks.

    Raises:
        BadInput: a part is missing, unexpected, of another shape, or of a kind that this project
            does not compute.
    """
    path = folder / "config.json"
    text = sizes(config, _TEXT, path)
    _refuse_unsupported(config, path)
    tensors = renamed(
        open_tensors(folder), lambda name: None if name.endswith("rotary_emb.inv_freq") else name
    )
    raw_vision = section(config, "vision_config", path)
    tower = {"hidden_act": "gelu", **raw_vision}
    tower["hidden_size"] = raw_vision.get("embed_dim", raw_vision.get("hidden_size"))
    encoder = ClipEncoder(
        tower_config(tower, _VISION, path),
        keep_class=True,
        epsilon=epsilon(raw_vision, 1e-5, path),
    )
    connector = _perceiver(section(config, "perceiver_config", path), encoder, path)
    tokenizer = read_tokenizer(folder, _ADDED)
    special_ids = _special_ids(folder, tokenizer)
    added = config.get("additional_vocab_size", 0)
    end = special_ids.pop(END, None)
    if end is not None and end < text["vocab_size"] + added:
        special_ids["</s>"] = end  # ends what a speaker says, as `</s>` does elsewhere
    injection = _injection(config, text, tensors, path)
    language = _language(tensors, text, added, folder)
    raw = {**config, **text, "model_type": "llama", "vocab_size": text["vocab_size"] + added}
    decoder = decoder_of(raw, language, path, folder)
    model = ModelConfig(
        family=FAMILY,
        llama=decoder.config,
        preprocessing=preprocessing(folder, encoder.image_size, SQUASH),
        encoder=encoder,
        connector=connector,
        injection=injection,
        attend=PRECEDING,
        embedding_rows=decoder.embedding_rows,
        template=IDEFICS.name,
        spelling=_spelling(injection, text["num_hidden_layers"]),
    )
    vision = tower_tensors(below(tensors, _PARTS[0]), encoder, CLIP_TOWER, folder)
    resampler = _perceiver_tensors(below(tensors, _PARTS[1]), connector, folder)
    parts = OpenedParts(decoder, vision, resampler, _block_tensors(tensors, model, folder))
    return assemble(
        model,
        parts,
        tokenizer,
        folder,
        special_ids=special_ids,
        lora=adapter(
            lora,
            lambda module: _block_module(module, text["cross_layer_interval"]),
            (
                Outside("vision_encoder", ("model.vision_model",), vision, unused_layer(encoder)),
                Outside(connector.name, ("model.perceiver_resampler",), resampler),
            ),
        ),
    )


def _refuse_unsupported(config: dict[str, Any], path: Path) -> None:
    found = []
    if not config.get("use_resampler"):
        found.append("no resampler")
    if type(config.get("additional_vocab_size", 0)) is not int:
        found.append(f"additional_vocab_size {config['additional_vocab_size']!r}")
    if config.get("alpha_type", "float") not in ("float", "vector"):
        found.append(f"alpha_type {config['alpha_type']!r}")
    if found:
        raise BadInput(
            f"{path} asks for {' and '.join(found)}, which this project does not compute; give "
            f"idefics-9b or a model trained from it."
        )


def _perceiver(config: dict[str, Any], encoder: ClipEncoder, path: Path) -> Perceiver:
    latents, depth, heads, dim_head = sizes(config, _PERCEIVER, path).values()
    norms = bool(config.get("qk_layer_norms_perceiver", False))
    return Perceiver(encoder.width, latents, depth, heads, dim_head, norms, "relu")


def _injection(
    config: dict[str, Any], text: dict[str, int], tensors: TensorSource, path: Path
) -> GatedLlama:
    layers, interval = text["num_hidden_layers"], text["cross_layer_interval"]
    heads, hidden = text["num_attention_heads"], text["hidden_size"]
    if hidden % heads or layers % interval:
        raise BadInput(f"The sizes in {path} do not fit each other; download it again.")
    eps = config.get("rms_norm_eps", 1e-6)
    if type(eps) not in (int, float) or not 0 < eps < 1:
        raise BadInput(f"{path} has rms_norm_eps {eps!r}; download it again.")
    return GatedLlama(
        layers=tuple(range(0, layers, interval)),
        heads=heads,
        kv_heads=heads,
        dim_head=hidden // heads,
        inner=text["intermediate_size"],
        head_norms=bool(config.get("qk_layer_norms", False)),
        gates=hidden if config.get("alpha_type", "float") == "vector" else 1,
        epsilon=float(eps),
        always=True,
    )


def _special_ids(folder: Path, tokenizer: TokenizerFiles) -> dict[str, int]:
    """The added tokens, from the folder's own list or else in the order of their publication."""
    ids = {FAKE: tokenizer.size, IMAGE: tokenizer.size + 1}
    path = folder / "added_tokens.json"
    if path.is_file():
        listed = read_json(path, "list of added tokens")
        ids |= {name: listed[name] for name in (FAKE, IMAGE, END) if name in listed}
    for name, number in ids.items():
        if type(number) is not int or not 0 <= number < 2**31:
            raise BadInput(f"{path} gives {name} the id {number!r}; download it again.")
    return ids


def _language(
    tensors: TensorSource, text: dict[str, int], added: int, folder: Path
) -> TensorSource:
    """LLaMA's tensors, with the tables of added tokens below its own."""
    rest = renamed(tensors, lambda name: None if name.startswith(_PARTS) else name)
    if not added:
        return rest
    tables = {*_TABLES, *_TABLES.values()}
    width = text["hidden_size"]
    parts = renamed(rest, lambda name: name if name in tables else None)
    expected: dict[str, tuple[int, ...]] = {}
    for name, more in _TABLES.items():
        expected |= {name: (text["vocab_size"], width), more: (added, width)}
    check_tensors(parts, expected, folder, "IDEFICS folder")
    shape = (text["vocab_size"] + added, width)
    joined = {
        name: Computed((name, more), shape, lambda *t: torch.cat(t))
        for name, more in _TABLES.items()
    }
    others = renamed(rest, lambda name: None if name in tables else name)
    return merged(others, ComputedTensors(parts, joined))


def _perceiver_tensors(source: TensorSource, c: Perceiver, folder: Path) -> Translated:
    """The resampler under the names of `qlora.model.connectors.perceiver`."""
    return translated(source, shapes_of(c.build), _perceiver_name, folder, "IDEFICS folder")


def _perceiver_name(ours: str) -> str | Joined:
    match = _RESAMPLER_LAYER.fullmatch(ours)
    if match is None:
        return ours.replace("norm.", "layer_norm.")  # and `latents`
    layer, (module, kind) = f"blocks.{match[1]}", match[2].rsplit(".", 1)
    if module == "0.to_kv":
        return Joined((f"{layer}.0.k_proj.{kind}", f"{layer}.0.v_proj.{kind}"))
    return f"{layer}.{_IN_RESAMPLER[module]}.{kind}"


def _spelling(injection: GatedLlama, layers: int) -> Spelling:
    return Spelling(
        layers=tuple(f"model.layers.{i}" for i in range(layers)),
        blocks={layer: f"{_BLOCK}{number}" for number, layer in enumerate(injection.layers)},
        in_block=_IN_BLOCK,
    )


def _block_tensors(tensors: TensorSource, model: ModelConfig, folder: Path) -> TensorSource:
    """The gated blocks under the names of `qlora.model.injection.gated_llama.GatedLlamaBlock`."""
    layers, theirs = model.injection.layers, {}
    shapes: dict[str, tuple[int, ...]] = {}
    block = shapes_of(lambda: model.injection.block(model.llama.hidden_size, model.dim_visual))
    for number, layer in enumerate(layers):
        for name, shape in block.items():
            ours = f"model.layers.{layer}.gated_cross_attn_layer.{name}"
            shapes[ours], theirs[ours] = shape, _block_name(number, name, shape)
    source = below(tensors, _BLOCK)
    return translated(source, shapes, theirs.__getitem__, folder, "IDEFICS folder")


def _block_name(number: int, ours: str, shape: tuple[int, ...]) -> str | Joined:
    module = ours.removesuffix(".weight")
    theirs = f"{number}.{_IN_BLOCK[module]}{ours.removeprefix(module)}"
    if not module.endswith("_gate"):
        return theirs
    return Joined((theirs,), leading=0 if shape == (1,) else 2)


def _block_module(module: str, interval: int) -> str | None:
    """Our path of a linear layer of a gated block; ours itself passes."""
    if ".gated_cross_attn_layer." in module:
        return module
    match = _BLOCK_LINEAR.fullmatch(module)
    if match is None:
        return None
    return f"model.layers.{int(match[1]) * interval}.gated_cross_attn_layer.{match[2]}"


# Of what is published (`qlora.families.models`), before it is downloaded.
SIZES = {
    "idefics-9b": ModelConfig(
        family=FAMILY,
        llama=LLAMA_7B,
        preprocessing=Preprocessing(224, fit=SQUASH),
        encoder=ClipEncoder(
            clip(1280, 32, 224, head_width=80) | {"quick_gelu": False}, keep_class=True
        ),
        connector=Perceiver(1280, 64, 6, 16, dim_head=96, head_norms=True, activation="relu"),
        injection=GatedLlama(
            layers=tuple(range(0, 32, 4)),
            heads=32,
            kv_heads=32,
            dim_head=128,
            inner=11008,
            head_norms=True,
            gates=1,
            epsilon=1e-6,
            always=True,
        ),
        attend=PRECEDING,
        embedding_rows=LLAMA_7B.vocab_size + 3,
        template=IDEFICS.name,
    )
}
