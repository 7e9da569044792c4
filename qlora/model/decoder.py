"""The decoder: transformers' LLaMA, with gated blocks before the layers that have one.

Contract: visual tokens and `image_index` reach the blocks as keyword arguments that LlamaModel
hands on untouched; a layer without a block is LLaMA's own.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaModel

from qlora.model.config import ModelConfig

# The KV cache's name among LlamaModel's arguments: transformers 5.24 has changed it.
_NAMES = inspect.signature(LlamaModel.forward).parameters
CACHE = "cache" if "cache" in _NAMES else "past_key_values"


def build_decoder(config: ModelConfig) -> LlamaForCausalLM:
    """transformers' LLaMA with a row of the embedding for each added token, every layer wrapped.

    On whatever device is current: under `torch.device("meta")` nothing is allocated.
    """
    llama_config = copy.deepcopy(config.llama)
    # Tied or not, the head is a tensor of its own here: it has no rows for the added tokens.
    llama_config.tie_word_embeddings = False
    llama = LlamaForCausalLM(llama_config)
    hidden, injection = llama_config.hidden_size, config.injection
    llama.model.embed_tokens = nn.Embedding(config.embedding_rows, hidden)
    for i, layer in enumerate(llama.model.layers):
        block = injection.block(hidden, config.dim_visual) if i in injection.layers else None
        llama.model.layers[i] = GatedDecoderLayer(layer, block)
    return llama


class GatedDecoderLayer(nn.Module):
    """A LLaMA decoder layer with, where the interval asks for it, a gated block before it.

    Attributes:
        checkpointing: keep only the layer's input for the backward pass and compute the layer
            again there (arXiv 1604.06174), the gated block included; gradients stay the same.
    """

    def __init__(self, decoder_layer: nn.Module, gated_cross_attn_layer: nn.Module | None) -> None:
        super().__init__()
        self.gated_cross_attn_layer = gated_cross_attn_layer
        self.decoder_layer = decoder_layer
        self.checkpointing = False

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # With a KV cache, the second computation would append to it again.
        cached = kwargs.get(CACHE) is not None
        if self.checkpointing and torch.is_grad_enabled() and not cached:
            return checkpoint(self._compute, hidden_states, *args, use_reentrant=False, **kwargs)
        return self._compute(hidden_states, *args, **kwargs)

    def _compute(
        self,
        hidden_states: Tensor,
        *args: Any,
        visual: Tensor | None = None,
        image_index: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        gated = self.gated_cross_attn_layer
        if gated is not None and not (gated.skips and visual is None):
            hidden_states = gated(hidden_states, visual, image_index)
        return self.decoder_layer(hidden_states, *args, **kwargs)
