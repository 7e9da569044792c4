"""The weights of one model, whatever files they lie in.

Contract: one lazy mapping from parameter names (those of `qlora.model.VisionLanguageModel`) to
tensors, with the LoRA already added. The torch model is filled from it and the ONNX graphs are
written from it, so what is exported is what was tested.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lite.errors import BadInput
from lite.text.template import template
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.lora import LoraCheckpoint, LoraDelta
from qlora.checkpoints.pages import release
from qlora.checkpoints.sources import TensorSource
from qlora.checkpoints.tokenizer_files import TokenizerFiles
from qlora.checkpoints.views import DerivedTensors
from qlora.model.config import ModelConfig


def adapted_name(path: str) -> str:
    """The parameter that an adapter changes.

    Args:
        path: of a module inside the language model, or the name of a parameter outside of it.
    """
    return path if path.endswith("weight") else f"lang_encoder.{path}.weight"


class LoraMerged(DerivedTensors):
    """`weights` with the adapter merged into each matrix it adapts, computed in float32."""

    def __init__(self, weights: TensorSource, deltas: Mapping[str, LoraDelta]) -> None:
        super().__init__(weights)
        self.deltas = {adapted_name(path): delta for path, delta in deltas.items()}
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
    """A model's checkpoints, opened and checked; what every reader of `qlora.families` gives.

    Attributes:
        config: sizes of the model.
        base: parameter name -> tensor, without the LoRA.
        tensors: the same with the LoRA merged (the same object where there is none).
        lora: the adapter, if one was given.
        tokenizer: the base tokenizer.
        special_ids: ids of the added tokens that this model has.
        llama_folder: where LLaMA and tokenizer were read.
        processor_folder: where the image processor's config is, if the model has one.
    """

    config: ModelConfig
    base: TensorSource
    tensors: TensorSource
    lora: LoraCheckpoint | None
    tokenizer: TokenizerFiles
    special_ids: dict[str, int]
    llama_folder: Path
    processor_folder: Path | None = None

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


def llama_name(name: str) -> str:
    """What a parameter of the language model is called in a LLaMA folder; others as they are."""
    return name.removeprefix("lang_encoder.").replace(".decoder_layer.", ".")
