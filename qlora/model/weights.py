"""Four checkpoints seen as the weights of one model.

Contract: `read_weights` checks that LLaMA, CLIP, OpenFlamingo checkpoint and LoRA fit each other,
and gives one lazy mapping from parameter names (those of `qlora.model.VisionLanguageModel`) to
tensors, with the LoRA already added. The torch model is filled from it and the ONNX graphs are
written from it, so what is exported is what was tested.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lite.bundle.attend import FOLLOWING
from lite.errors import BadInput
from lite.image.preprocessing import Preprocessing
from lite.text.template import MMGPT, template
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.clip import ClipCheckpoint, read_clip
from qlora.checkpoints.flamingo import cross_attn_interval, gated_layers, read_flamingo
from qlora.checkpoints.llama import LlamaCheckpoint, read_llama
from qlora.checkpoints.lora import LoraCheckpoint, LoraDelta, read_lora
from qlora.checkpoints.pages import release
from qlora.checkpoints.sources import TensorSource, merged, renamed
from qlora.checkpoints.tokenizer_files import TokenizerFiles, read_tokenizer
from qlora.checkpoints.views import DerivedTensors
from qlora.model.config import DIM_HEAD, Encoder, Gated, ModelConfig, Perceiver

# Rows that OpenFlamingo appends to the input embedding: <|endofchunk|>, <image>, and <PAD> where
# the tokenizer brought no pad token of its own.
ADDED_TOKENS = ("<|endofchunk|>", "<image>", "<PAD>")

# Parameters of the vision tower that patch tokens never pass (see `qlora.model.clip`).
UNUSED_VISION = ("ln_post.weight", "ln_post.bias", "proj")


class LoraMerged(DerivedTensors):
    """`weights` with the adapter merged into each matrix it adapts, computed in float32."""

    def __init__(self, weights: TensorSource, deltas: Mapping[str, LoraDelta]) -> None:
        super().__init__(weights)
        self.deltas = {f"lang_encoder.{path}.weight": delta for path, delta in deltas.items()}
        for name, delta in self.deltas.items():
            shape = (delta.b.shape[0], delta.a.shape[1])
            if name not in weights:
                raise BadInput(
                    f"The LoRA adapts {name}, which this model does not have; "
                    f"use the LoRA of a model with the same layers."
                )
            if weights.shape(name) != shape:
                raise BadInput(
                    f"The LoRA for {name} has shape {list(shape)} but the weight has "
                    f"{list(weights.shape(name))}; use the LoRA of a model of the same sizes."
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        weight = self.weights[name]
        delta = self.deltas.get(name)
        if delta is None:
            return weight
        merged = delta.merged(weight)
        release(weight)  # whoever reads the merged matrix cannot
        return merged

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32 if name in self.deltas else self.weights.dtype(name)


@dataclass(frozen=True)
class ModelWeights:
    """What `read_weights` found.

    Attributes:
        config: sizes of the model.
        base: parameter name -> tensor, without the LoRA.
        tensors: the same with the LoRA merged (the same object where there is none).
        lora: the adapter, if one was given.
        tokenizer: the base tokenizer.
        special_ids: ids of the added tokens that this model has.
        llama_folder: where LLaMA and tokenizer were read.
    """

    config: ModelConfig
    base: TensorSource
    tensors: TensorSource
    lora: LoraCheckpoint | None
    tokenizer: TokenizerFiles
    special_ids: dict[str, int]
    llama_folder: Path

    def chat_tokenizer(self) -> Tokenizer:
        """The tokenizer with its special tokens, as training and chat use it."""
        base, config = self.tokenizer, self.config
        special_ids = {"<s>": base.bos, "</s>": base.eos, **self.special_ids}
        return Tokenizer(
            base.tokenizer,
            special_ids,
            image_tokens=config.injected(special_ids["<image>"]).image_tokens,
            strips=template(config.template).strips,
        )

    @property
    def parameters(self) -> int:
        """Number of values in all tensors."""
        return sum(math.prod(self.tensors.shape(name)) for name in self.tensors)


def model_tokenizer(base: TokenizerFiles) -> Tokenizer:
    """A LLaMA's tokenizer with OpenFlamingo's tokens added after its pieces, for a new model."""
    added = {name: base.size + i for i, name in enumerate(ADDED_TOKENS)}
    return Tokenizer(base.tokenizer, {"<s>": base.bos, "</s>": base.eos, **added})


def llama_name(name: str) -> str:
    """What a parameter of the language model is called in a LLaMA folder; others as they are."""
    return name.removeprefix("lang_encoder.").replace(".decoder_layer.", ".")


def read_weights(
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
    decoder, connector = read_llama(llama), read_flamingo(flamingo)
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


def _join(
    decoder: LlamaCheckpoint, vision: ClipCheckpoint, connector: TensorSource
) -> TensorSource:
    """All tensors under the names of `qlora.model.VisionLanguageModel`'s parameters."""

    def in_vision(name: str) -> str | None:
        return None if name in UNUSED_VISION else f"vision_encoder.{name}"

    def in_decoder(name: str) -> str | None:
        if name == "model.embed_tokens.weight":
            return None  # OpenFlamingo's has the added tokens, and takes its place
        wrapped = re.sub(r"^(model\.layers\.\d+)\.", r"\1.decoder_layer.", name)
        return f"lang_encoder.{wrapped}"

    return merged(
        connector, renamed(vision.tensors, in_vision), renamed(decoder.tensors, in_decoder)
    )


def _config(
    decoder: LlamaCheckpoint, vision: ClipCheckpoint, connector: TensorSource, attend: str
) -> ModelConfig:
    latents, dim_visual = connector.shape("perceiver.latents")
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
    layer_names = [name for name in connector if name.startswith("perceiver.layers.")]
    block = f"lang_encoder.model.layers.{gated[0]}.gated_cross_attn_layer.attn.to_q.weight"
    return ModelConfig(
        family="mmgpt",
        llama=decoder.config,
        preprocessing=Preprocessing(vision.image_size, vision.mean, vision.std),
        encoder=Encoder(vision.config),
        connector=Perceiver(
            width=dim_visual,
            latents=latents,
            depth=len({name.split(".")[2] for name in layer_names}),
            heads=connector.shape("perceiver.layers.0.0.to_q.weight")[0] // DIM_HEAD,
        ),
        injection=Gated(gated, connector.shape(block)[0] // DIM_HEAD),
        attend=attend,
        embedding_rows=rows,
        template=MMGPT.name,
    )


def _special_ids(tokenizer: TokenizerFiles, rows: int, flamingo: Path) -> dict[str, int]:
    added = rows - tokenizer.size
    expected = (2, 3) if tokenizer.pad is None else (2,)
    if added not in expected:
        raise BadInput(
            f"The embeddings in {flamingo} have {rows} rows and the tokenizer has {tokenizer.size} "
            f"pieces, which leaves {added} for the added tokens instead of 2 or 3; "
            f"use the tokenizer that this checkpoint was trained with."
        )
    return {ADDED_TOKENS[i]: tokenizer.size + i for i in range(added)}
