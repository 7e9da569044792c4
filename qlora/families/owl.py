"""mPLUG-Owl 7B as X-PLUG published it: one folder with everything.

Contract: `read` gives the whole model of the folder that mPLUG-Owl saves (`config.json` of type
`mplug-owl`, `pytorch_model.bin` or shards, SentencePiece tokenizer). Sizes that the configuration
gets wrong are read off the tensors: the abstractor's feed-forward is 2816 wide in the released
files whatever `intermediate_size` says.

Left out on purpose: `rotary_emb.inv_freq`. Refused: the video variant.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from lite.bundle.attend import OWN
from lite.errors import BadInput
from lite.image.preprocessing import SQUASH, Preprocessing
from lite.text.template import OWL
from qlora.checkpoints.llama import decoder_of
from qlora.checkpoints.sources import TensorSource, open_tensors, renamed
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.checkpoints.translation import Translated, shapes_of, translated
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
from qlora.families.towers import OWL_TOWER, tower_config, tower_tensors
from qlora.model.config import ModelConfig
from qlora.model.connectors.abstractor import Abstractor
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.spliced import Spliced
from qlora.model.weights import ModelWeights

FAMILY = "mplug-owl"
MODEL_TYPES = (FAMILY,)
WHOLE = True
_VISION, _ABSTRACTOR, _LANGUAGE = "vision_model.", "abstractor.", "language_model."
# Defaults of the published code (configuration_mplug_owl.py), where a config leaves a size out.
_VIT: dict[str, int | None] = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 14,
}
_QUERIES: dict[str, int | None] = {
    "hidden_size": 1024,
    "num_hidden_layers": 6,
    "num_attention_heads": 16,
}
_OUR_PART = re.compile(r"layers\.(\d+)\.(.+)")
# Of the published code: where the modules of a layer stand below `crossattention.`
_PLACES = {
    **dict.fromkeys(("query", "key", "value"), "attention."),
    **dict.fromkeys(("out_proj", "norm2"), "output."),
    **dict.fromkeys(("w1", "w2", "w3", "ffn_ln"), "output.mlp."),
}


def read(folder: Path, config: dict[str, Any], lora: Path | None = None) -> ModelWeights:
    """Open an mPLUG-Owl folder; tensors are read when asked for.

    Args:
        folder: as published.
        config: its `config.json`.
        lora: a PEFT adapter folder, merged into the language model.

    Raises:
        BadInput: a part is missing, unexpected, of another shape, or of the video variant.
    """
    path = folder / "config.json"
    tensors = open_tensors(folder)
    _refuse_others(tensors, folder)
    encoder = ClipEncoder(
        tower_config(section(config, "vision_config", path), _VIT, path),
        keep_class=True,
        final_norm=True,
        epsilon=epsilon(config["vision_config"], 1e-6, path),
    )
    text = section(config, "text_config", path)
    decoder = decoder_of({"model_type": "llama", **text}, below(tensors, _LANGUAGE), path, folder)
    connector = _abstractor(config, tensors, encoder, path)
    model = ModelConfig(
        family=FAMILY,
        llama=decoder.config,
        preprocessing=preprocessing(folder, encoder.image_size, SQUASH),
        encoder=encoder,
        connector=connector,
        injection=Spliced(),
        attend=OWN,
        embedding_rows=decoder.embedding_rows,
        template=OWL.name,
    )
    vision = tower_tensors(below(tensors, _VISION), encoder, OWL_TOWER, folder)
    abstractor = _connector_tensors(tensors, connector, folder)
    outside = (
        Outside("vision_encoder", ("vision_model",), vision),
        Outside(connector.name, ("",), abstractor),
    )
    parts = OpenedParts(decoder, vision, abstractor)
    tokenizer = read_tokenizer(folder)
    return assemble(model, parts, tokenizer, folder, lora=adapter(lora, outside=outside))


def _refuse_others(tensors: TensorSource, folder: Path) -> None:
    for name in tensors:
        if ".temporal." in name or "temporal_" in name:
            raise BadInput(
                f"{folder} holds {name}, so it is mPLUG-Owl's video variant, which is not "
                f"supported; give mplug-owl-llama-7b or a model trained from it."
            )
        if not name.startswith((_VISION, _ABSTRACTOR, _LANGUAGE)) and name != "query_tokens":
            raise BadInput(
                f"{folder} holds {name}, which mPLUG-Owl does not have; give the folder as "
                f"published."
            )


def _abstractor(
    config: dict[str, Any], tensors: TensorSource, encoder: ClipEncoder, path: Path
) -> Abstractor:
    raw = section(config, "visual_abstractor_config", path)
    found = sizes(raw, _QUERIES, path)
    first = "abstractor.encoder.layers.0.crossattention.output.mlp.w1.weight"
    for name in (first, "abstractor.visual_fc.weight", "query_tokens"):
        if name not in tensors:
            raise BadInput(
                f"{path.parent} lacks {name}, so its abstractor is missing or incomplete; give the "
                f"folder as published."
            )
    dim, heads = found["hidden_size"], found["num_attention_heads"]
    if dim % heads:
        raise BadInput(f"{path} gives the abstractor {heads} heads for a width of {dim}.")
    return Abstractor(
        dim=dim,
        dim_media=encoder.width,
        queries=tensors.shape("query_tokens")[-2],
        depth=found["num_hidden_layers"],
        heads=heads,
        inner=tensors.shape(first)[0],
        width=tensors.shape("abstractor.visual_fc.weight")[0],
    )


def _connector_tensors(tensors: TensorSource, c: Abstractor, folder: Path) -> Translated:
    """The abstractor under the names of its module; in the folder its queries stand outside."""
    inside = renamed(
        tensors, lambda name: name if name.startswith((_ABSTRACTOR, "query_tokens")) else None
    )
    return translated(inside, shapes_of(c.build), _abstractor_name, folder, "mPLUG-Owl folder")


def _abstractor_name(ours: str) -> str:
    if ours == "query_tokens":
        return ours
    match = _OUR_PART.fullmatch(ours)
    if match is None:
        return _ABSTRACTOR + ours
    layer, part = match[1], match[2]
    place = _PLACES.get(part.split(".")[0], "")
    return f"{_ABSTRACTOR}encoder.layers.{layer}.crossattention.{place}{part}"


# Of what is published (`qlora.families.models`), before it is downloaded.
SIZES = {
    "mplug-owl-7b": ModelConfig(
        family=FAMILY,
        llama=LLAMA_7B,
        preprocessing=Preprocessing(224, fit=SQUASH),
        encoder=ClipEncoder(clip(1024, 24, 224), keep_class=True, final_norm=True, epsilon=1e-6),
        connector=Abstractor(
            dim=1024, dim_media=1024, queries=64, depth=6, heads=16, inner=2816, width=4096
        ),
        injection=Spliced(),
        attend=OWN,
        embedding_rows=LLAMA_7B.vocab_size + 3,
        template=OWL.name,
    )
}
