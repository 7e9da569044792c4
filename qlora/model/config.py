"""The sizes of a Flamingo-kind model, and what its tokens and images look like.

Contract: plain data, read off the checkpoints by `qlora.model.weights` and nowhere else; the torch
model and the ONNX graphs are both built from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlamaConfig

from lite.images import Preprocessing

# Widths of one attention head in the resampler and in the gated blocks. OpenFlamingo fixes it, and
# no checkpoint tells it: only heads * DIM_HEAD shows in the tensors.
DIM_HEAD = 64


@dataclass(frozen=True)
class FlamingoConfig:
    """Sizes of every part.

    Attributes:
        llama: the decoder as transformers knows it.
        clip: open_clip model config of the vision tower, `quick_gelu` settled.
        preprocessing: how images become pixels.
        embedding_rows: rows of the input embedding, the added tokens included; the head has
            `llama.vocab_size` rows, so added tokens are never predicted.
        gated_layers: decoder layers that have a gated block before them.
        dim_visual: width of a resampled token.
        latents: resampled tokens per image.
        resampler_depth: layers of the resampler.
        resampler_heads: attention heads of the resampler.
        gated_heads: attention heads of a gated block.
        attend: the attend rule, see `lite.attend`.
    """

    llama: LlamaConfig
    clip: dict[str, Any]
    preprocessing: Preprocessing
    embedding_rows: int
    gated_layers: tuple[int, ...]
    dim_visual: int
    latents: int
    resampler_depth: int
    resampler_heads: int
    gated_heads: int
    attend: str
