"""OpenFlamingo's models on LLaMA, Multimodal-GPT among them, from their four checkpoints.

Contract: `read_flamingo` checks that LLaMA, CLIP, OpenFlamingo checkpoint and LoRA fit each other.
`open_flamingo` opens the `checkpoint.pt`: resampler, gated cross-attention blocks and input
embedding, complete and agreeing in their sizes. Nothing of it is left out except alias names:
OpenFlamingo v0 saves every block a second time as `lang_encoder.gated_cross_attn_layers.{i}.*`; the
copy is compared, then dropped. A dump of the whole model (with the vision encoder or LLaMA's own
layers) is refused, because those parts come from the CLIP and LLaMA checkpoints and two sources for
one tensor could disagree unseen.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import LlamaConfig

from lite.bundle.attend import FOLLOWING
from lite.errors import BadInput
from lite.image.preprocessing import CROP, Preprocessing
from lite.text.template import MMGPT
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.checks import check_tensors, same_content
from qlora.checkpoints.clip import ClipCheckpoint, read_clip
from qlora.checkpoints.llama import LlamaCheckpoint, read_llama
from qlora.checkpoints.lora import read_lora, refuse_adapter_beside
from qlora.checkpoints.sources import TensorSource, merged, open_tensors, renamed
from qlora.checkpoints.tokenizer_files import TokenizerFiles, read_tokenizer
from qlora.checkpoints.translation import shapes_of
from qlora.checkpoints.views import without_module
from qlora.families.parts import in_decoder
from qlora.families.sizes import LLAMA_7B, clip
from qlora.model.config import ModelConfig
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.gated import Gated
from qlora.model.layers import DIM_HEAD
from qlora.model.weights import LoraMerged, ModelWeights

# None: its checkpoints have no config.json.
MODEL_TYPES: tuple[str, ...] = ()
# Rows that OpenFlamingo appends to the input embedding: <|endofchunk|>, <image>, and <PAD> where
# the tokenizer brought no pad token of its own.
ADDED_TOKENS = ("<|endofchunk|>", "<image>", "<PAD>")

# Parameters of the vision tower that patch tokens never pass (see `qlora.model.encoders.clip`).
UNUSED_VISION = ("ln_post.weight", "ln_post.bias", "proj")

EMBEDDING = "lang_encoder.model.embed_tokens.weight"
_BLOCK = "lang_encoder.model.layers.{}.gated_cross_attn_layer."
_BLOCK_NAME = re.compile(r"lang_encoder\.model\.layers\.(\d+)\.gated_cross_attn_layer\..+")
_ALIAS_NAME = re.compile(r"lang_encoder\.gated_cross_attn_layers\.(\d+)\.(.+)")
_PERCEIVER_LAYER = re.compile(r"perceiver\.layers\.(\d+)\..+")

# (pattern of the name, what the file is, where to go from there)
_REFUSED = (
    (
        r".*\.lora_",
        "holds LoRA matrices",
        "give it as the LoRA and OpenFlamingo's checkpoint.pt here",
    ),
    (
        r"perceiver\.(frame_embs|media_time_embs)",
        "is a checkpoint for video",
        "give one that was trained on images",
    ),
    (
        r"lang_encoder\.(transformer|gpt_neox|model\.decoder)\.",
        "was trained with another language model than LLaMA",
        "give OpenFlamingo-9B's v0 checkpoint (OpenFlamingo-9B-deprecated)",
    ),
    (
        r"vision_encoder\.|lang_encoder\.old_decoder_blocks\.|lang_encoder\..*decoder_layer\."
        r"|lang_encoder\.(lm_head|model\.norm)\.",
        "is a dump of the whole model rather than OpenFlamingo's checkpoint.pt",
        "give the checkpoint.pt, or save the tensors of perceiver, gated blocks and embed_tokens",
    ),
)


def read_flamingo(
    llama: Path,
    clip_config: str,
    clip: str,
    flamingo: Path,
    lora: Path | None = None,
    attend: str = FOLLOWING,
) -> ModelWeights:
    """Open the checkpoints and check that they belong together; nothing large is read yet.

    Args:
        llama: LLaMA folder.
        clip_config: open_clip model name or config file.
        clip: open_clip pretrained tag or weights file.
        flamingo: OpenFlamingo `checkpoint.pt`.
        lora: Multimodal-GPT LoRA file or PEFT adapter folder.
        attend: the attend rule the model was trained with.

    Raises:
        BadInput: a file is missing, damaged, of another kind, or does not fit the others.
    """
    refuse_adapter_beside(llama, lora)
    decoder, connector = read_llama(llama), open_flamingo(flamingo)
    vision = read_clip(clip_config, clip)
    tokenizer = read_tokenizer(llama)
    config = _config(decoder, vision, connector, attend)
    base = _join(decoder, vision, connector)
    adapter = read_lora(lora) if lora is not None else None
    return ModelWeights(
        config=config,
        base=base,
        tensors=LoraMerged(base, adapter.deltas) if adapter else base,
        lora=adapter,
        tokenizer=tokenizer,
        special_ids=_special_ids(tokenizer, config.embedding_rows, flamingo),
        llama_folder=decoder.folder,
    )


def model_tokenizer(base: TokenizerFiles) -> Tokenizer:
    """A LLaMA's tokenizer with OpenFlamingo's tokens added after its pieces, for a new model."""
    added = {name: base.size + i for i, name in enumerate(ADDED_TOKENS)}
    return Tokenizer(base.tokenizer, {"<s>": base.bos, "</s>": base.eos, **added})


def _join(
    decoder: LlamaCheckpoint, vision: ClipCheckpoint, connector: TensorSource
) -> TensorSource:
    """All tensors under the names of `qlora.model.VisionLanguageModel`'s parameters."""

    def in_vision(name: str) -> str | None:
        return None if name in UNUSED_VISION else f"vision_encoder.{name}"

    def in_language(name: str) -> str | None:
        # OpenFlamingo's embedding has the added tokens, and replaces LLaMA's.
        return None if name == "model.embed_tokens.weight" else f"lang_encoder.{in_decoder(name)}"

    return merged(
        connector, renamed(vision.tensors, in_vision), renamed(decoder.tensors, in_language)
    )


def _config(
    decoder: LlamaCheckpoint, vision: ClipCheckpoint, connector: TensorSource, attend: str
) -> ModelConfig:
    _, dim_visual = connector.shape("perceiver.latents")
    rows, hidden = connector.shape("lang_encoder.model.embed_tokens.weight")
    gated = tuple(gated_layers(connector))
    where = connector.where("perceiver.latents")
    width = vision.config["vision_cfg"]["width"]
    if dim_visual != width:
        raise BadInput(
            f"The resampler in {where} expects patch tokens of width {dim_visual} but the CLIP "
            f"model gives {width}; use the CLIP model that this checkpoint was trained with."
        )
    if hidden != decoder.config.hidden_size:
        raise BadInput(
            f"The embeddings in {where} have width {hidden} but the LLaMA in {decoder.folder} has "
            f"{decoder.config.hidden_size}; use the LLaMA that this checkpoint was trained with."
        )
    layers, interval = decoder.config.num_hidden_layers, cross_attn_interval(connector)
    if gated != tuple(range(interval - 1, layers, interval)):
        raise BadInput(
            f"{where} has gated blocks before layers {', '.join(map(str, gated))}, which does not "
            f"fit the {layers} layers of the LLaMA in {decoder.folder}; "
            f"use the LLaMA that this checkpoint was trained with, and the complete checkpoint."
        )
    return ModelConfig(
        family="mmgpt",
        llama=decoder.config,
        preprocessing=Preprocessing(vision.image_size, vision.mean, vision.std),
        encoder=ClipEncoder(vision.config),
        connector=_perceiver(connector, where),
        injection=_injection(connector),
        attend=attend,
        embedding_rows=rows,
        template=MMGPT.name,
    )


def _special_ids(tokenizer: TokenizerFiles, rows: int, flamingo: Path) -> dict[str, int]:
    # Three where the tokenizer had no pad token when this was trained, whatever it has now.
    added = rows - tokenizer.size
    if added not in (2, 3):
        raise BadInput(
            f"The embeddings in {flamingo} have {rows} rows and the tokenizer has {tokenizer.size} "
            f"pieces, which leaves {added} for the added tokens instead of 2 or 3; "
            f"use the tokenizer that this checkpoint was trained with."
        )
    return {ADDED_TOKENS[i]: tokenizer.size + i for i in range(added)}


def open_flamingo(path: Path) -> TensorSource:
    """Open OpenFlamingo's trained tensors; they are read when asked for.

    Returns:
        D = `perceiver.latents.shape[1]`, H = width of the embedding: `perceiver.latents
        [latents, D]`, `perceiver.layers.{l}.*`, `perceiver.norm.*`, the embedding `[rows, H]`,
        and per gated block 11 tensors between H and D.

    Raises:
        BadInput: a tensor is missing, unexpected or of a shape that disagrees with the others,
            the aliases differ, or the file is of another kind.
    """
    path = Path(path)
    source = _canonical(renamed(open_tensors(path), without_module), path)
    for name in source:
        _refuse_other_kinds(name, path)
    for name in ("perceiver.latents", "perceiver.layers.0.0.to_q.weight", EMBEDDING):
        if name not in source:
            raise BadInput(
                f"{path} lacks {name}, so it is not an OpenFlamingo checkpoint of the LLaMA kind; "
                f"give its checkpoint.pt."
            )
    expected = _expected_shapes(source, path)
    check_tensors(source, expected, path, "OpenFlamingo checkpoint")
    return source


def gated_layers(source: TensorSource) -> list[int]:
    """The decoder layers that have a gated block before them, ascending."""
    return sorted({int(m[1]) for name in source if (m := _BLOCK_NAME.fullmatch(name))})


def cross_attn_interval(source: TensorSource) -> int:
    """OpenFlamingo's `cross_attn_every_n_layers`: blocks stand where (i + 1) % n == 0.

    Whether the last block is there cannot be told without the number of decoder layers.

    Raises:
        BadInput: there is no gated block, or they are not evenly spaced.
    """
    layers = gated_layers(source)
    if not layers:
        raise BadInput("The checkpoint has no gated cross-attention block; give checkpoint.pt.")
    interval = layers[0] + 1
    if layers != [interval * (k + 1) - 1 for k in range(len(layers))]:
        where = source.where(EMBEDDING)
        raise BadInput(
            f"The gated blocks in {where} stand at layers {layers}, which is no even spacing, so "
            f"one is missing or too many; give a complete checkpoint.pt."
        )
    return interval


def _canonical(source: TensorSource, path: Path) -> TensorSource:
    """The view without alias names. Either set of names may be the only one."""
    names: dict[str, str] = {}
    for name in source:
        alias = _ALIAS_NAME.fullmatch(name)
        if alias is None:
            names[name] = name
            continue
        canonical = _BLOCK.format(alias[1]) + alias[2]
        if canonical not in source:
            names[canonical] = name
        elif source.shape(canonical) != source.shape(name) or not same_content(
            source[canonical], source[name]
        ):
            raise BadInput(
                f"{path} holds {canonical} and {name} with different values although they are "
                f"one parameter; download it again."
            )
    return renamed(source, names)


def _refuse_other_kinds(name: str, path: Path) -> None:
    for pattern, what, instead in _REFUSED:
        if re.match(pattern, name):
            raise BadInput(f"{path} {what} (it holds {name}); {instead}.")


def _expected_shapes(source: TensorSource, path: Path) -> dict[str, tuple[int, ...]]:
    """Every name, and shapes that follow from the file's own sizes."""
    rows, hidden = _matrix(source, EMBEDDING)
    perceiver, injection = _perceiver(source, path), _injection(source)
    shapes = shapes_of(perceiver.build, "perceiver.") | {EMBEDDING: (rows, hidden)}
    block = shapes_of(lambda: injection.block(hidden, perceiver.width))
    for layer in injection.layers:
        shapes |= {_BLOCK.format(layer) + name: shape for name, shape in block.items()}
    return shapes


def _perceiver(source: TensorSource, path: Path) -> Perceiver:
    latents, width = _matrix(source, "perceiver.latents")
    heads = _heads(source, "perceiver.layers.0.0.to_q.weight")
    return Perceiver(width, latents, _depth(source, path), heads)


def _injection(source: TensorSource) -> Gated:
    first = _BLOCK.format(cross_attn_interval(source) - 1)
    return Gated(tuple(gated_layers(source)), _heads(source, f"{first}attn.to_q.weight"))


def _heads(source: TensorSource, name: str) -> int:
    """Of an attention, from its projection of queries, where `check_tensors` will look again."""
    rows = source.shape(name)[0] if name in source and source.shape(name) else 0
    return max(1, rows // DIM_HEAD)


def _depth(source: TensorSource, path: Path) -> int:
    layers = {int(m[1]) for name in source if (m := _PERCEIVER_LAYER.fullmatch(name))}
    gaps = [i for i in range(len(layers)) if i not in layers]
    if gaps:
        raise BadInput(
            f"{path} lacks perceiver.layers.{gaps[0]} although it holds "
            f"perceiver.layers.{max(layers)}; give a complete checkpoint.pt."
        )
    return len(layers)


def _matrix(source: TensorSource, name: str) -> tuple[int, int]:
    shape = source.shape(name)
    if len(shape) != 2:
        raise BadInput(
            f"{name} in {source.where(name)} has shape {list(shape)} instead of two axes; give "
            f"OpenFlamingo's checkpoint.pt."
        )
    return shape


def flamingo_sizes(language: LlamaConfig, interval: int, tower: dict[str, Any]) -> ModelConfig:
    """OpenFlamingo's sizes around a LLaMA and an open_clip config.

    A gated block stands before every `interval`-th layer.
    """
    vision = tower["vision_cfg"]
    return ModelConfig(
        family="mmgpt",
        llama=language,
        encoder=ClipEncoder(tower),
        connector=Perceiver(width=vision["width"], latents=64, depth=6, heads=8),
        injection=Gated(tuple(range(interval - 1, language.num_hidden_layers, interval)), 8),
        attend=FOLLOWING,
        preprocessing=Preprocessing(vision["image_size"], fit=CROP),
        embedding_rows=language.vocab_size + len(ADDED_TOKENS),
        template=MMGPT.name,
    )


# Of what is published (`qlora.families.models`), before it is downloaded.
SIZES = {"mmgpt-9b": flamingo_sizes(LLAMA_7B, 4, clip(1024, 24, 224))}
