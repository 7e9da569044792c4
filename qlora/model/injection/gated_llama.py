"""Gated cross-attention of LLaMA's building blocks: IDEFICS's and Llama-3.2-Vision's.

Contract: the arithmetic of transformers' `IdeficsGatedCrossAttentionLayer` and
`MllamaCrossAttentionDecoderLayer`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from qlora.model.injection.attention import CrossAttention, attend_to_images
from qlora.model.layers import split_heads


@dataclass(frozen=True)
class GatedLlama(CrossAttention):
    """Gated cross-attention by blocks that are built as LLaMA's layers.

    IDEFICS puts them between LLaMA's layers. Llama-3.2-Vision counts them as layers, which is the
    same: each stands before a layer with self-attention.

    Attributes:
        layers: decoder layers that have a gated block before them.
        heads: attention heads of a block.
        kv_heads: heads of its keys and values.
        dim_head: width of a head.
        inner: width of the feed-forward's gated layer.
        head_norms: queries and keys pass a norm of their own, head by head.
        gates: values of a gate, one or one for each feature.
        epsilon: of the norms.
        always: the feed-forward runs for tokens that attend to no image too, in every conversation;
            otherwise such tokens pass the block unchanged.
    """

    layers: tuple[int, ...]
    heads: int
    kv_heads: int
    dim_head: int
    inner: int
    head_norms: bool
    gates: int
    epsilon: float
    always: bool

    def block(self, hidden: int, dim_visual: int) -> GatedLlamaBlock:
        """One gated block."""
        return GatedLlamaBlock(hidden, dim_visual, self)


class GatedLlamaBlock(nn.Module):
    """`x += tanh(attn_gate) * attention; x += tanh(ff_gate) * feed-forward`, of LLaMA's layers.

    IDEFICS's feed-forward runs whether there are images or not. Llama-3.2-Vision's leaves tokens
    that attend to no image as they are. (In transformers, attention's share of that is wrong when
    text stands before the first image: huggingface/transformers#39379. Here it is as in Meta's own
    code.)
    """

    def __init__(self, dim: int, dim_visual: int, config: GatedLlama) -> None:
        super().__init__()
        inner, epsilon = config.heads * config.dim_head, config.epsilon
        keys = config.kv_heads * config.dim_head
        self.skips = not config.always  # in a conversation without images
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.input_layernorm = LlamaRMSNorm(dim, epsilon)
        self.post_attention_layernorm = LlamaRMSNorm(dim, epsilon)
        self.q_proj = nn.Linear(dim, inner, bias=False)
        self.k_proj = nn.Linear(dim_visual, keys, bias=False)
        self.v_proj = nn.Linear(dim_visual, keys, bias=False)
        self.o_proj = nn.Linear(inner, dim, bias=False)
        norms = config.head_norms
        self.q_norm = LlamaRMSNorm(config.dim_head, epsilon) if norms else nn.Identity()
        self.k_norm = LlamaRMSNorm(config.dim_head, epsilon) if norms else nn.Identity()
        self.gate_proj = nn.Linear(dim, config.inner, bias=False)
        self.up_proj = nn.Linear(dim, config.inner, bias=False)
        self.down_proj = nn.Linear(config.inner, dim, bias=False)
        self.attn_gate = nn.Parameter(torch.zeros(config.gates))
        self.ff_gate = nn.Parameter(torch.zeros(config.gates))

    def forward(self, x: Tensor, visual: Tensor | None, image_index: Tensor) -> Tensor:
        if visual is not None:
            q = split_heads(self.q_proj(self.input_layernorm(x)), self.heads)
            seen = visual.flatten(1, 2)
            k, v = (split_heads(p(seen), self.kv_heads) for p in (self.k_proj, self.v_proj))
            q, k = self.q_norm(q), self.k_norm(k)
            out = attend_to_images(q, k, v, image_index, visual)
            x = x + self.attn_gate.tanh() * self.o_proj(out)
        h = self.post_attention_layernorm(x)
        h = self.down_proj(silu(self.gate_proj(h)) * self.up_proj(h))
        if self.skips:
            index = image_index if image_index.dim() == 2 else image_index[..., 1]
            h = h.masked_fill((index == 0)[..., None], 0.0)
        return x + self.ff_gate.tanh() * h
