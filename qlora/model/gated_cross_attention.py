"""The gated cross-attention block, and the layer that puts it before a LLaMA layer.

Contract: parameter names and arithmetic equal OpenFlamingo's `GatedCrossAttentionBlock`
(open_flamingo 0.0.2, `helpers.py`); which token sees which image is decided by `lite.bundle.attend`
and comes in as `image_index`. Without any image the whole block is skipped, feed-forward included.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint
from transformers.models.llama.modeling_llama import LlamaModel, LlamaRMSNorm

from qlora.model.config import GatedLlama
from qlora.model.perceiver import LayerNorm, feed_forward, split_heads

# The KV cache's name among LlamaModel's arguments: transformers 5.24 has changed it.
_NAMES = inspect.signature(LlamaModel.forward).parameters
CACHE = "cache" if "cache" in _NAMES else "past_key_values"


class MaskedCrossAttention(nn.Module):
    """Text attends to the resampled tokens of one image each; the media side has no norm."""

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        inner = dim_head * heads
        self.heads = heads
        self.norm = LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim_visual, inner * 2, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, x: Tensor, visual: Tensor, image_index: Tensor) -> Tensor:
        """
        Args:
            x: hidden states `[B, T, D]`.
            visual: resampled tokens `[B, N, L, D_vis]` of N images.
            image_index: int `[B, T]`, the image that each token sees, 0 for none.

        Returns:
            `[B, T, D]`, exactly zero where `image_index` is 0.
        """
        q = split_heads(self.to_q(self.norm(x)), self.heads)
        k, v = self.to_kv(visual.flatten(1, 2)).chunk(2, dim=-1)  # [B, N * L, inner]
        k, v = split_heads(k, self.heads), split_heads(v, self.heads)
        return self.to_out(attend_to_images(q, k, v, image_index, visual))


def attend_to_images(
    q: Tensor, k: Tensor, v: Tensor, image_index: Tensor, visual: Tensor
) -> Tensor:
    """Attention of each token to the visual tokens of its image, or images.

    Args:
        q: `[B, heads, T, d]`.
        k, v: `[B, kv_heads, N * L, d]`.
        image_index: int `[B, T]`, the image that each token sees, 0 for none; or `[B, T, 2]`, the
            first and the last.
        visual: what keys and values were made of, `[B, N, L, D_vis]`; zeros are no tokens.

    Returns:
        `[B, T, heads * d]`, exactly zero where `image_index` is 0.
    """
    _, images, latents, _ = visual.shape
    owner = torch.arange(images, device=q.device).repeat_interleave(latents) + 1
    ranges = image_index if image_index.dim() == 3 else image_index[..., None]  # [B, T, 1 or 2]
    first, last = ranges[..., :1], ranges[..., -1:]
    sees_none = last[..., 0] == 0
    there = visual.any(-1).flatten(1)[:, None]  # [B, 1, N * L]
    # A row that may see nothing would make softmax divide by zero: let it see everything, and blank
    # its output below.
    allowed = ((first <= owner) & (owner <= last) & there) | sees_none[..., None]  # [B, T, N * L]
    grouped = q.shape[1] != k.shape[1]
    out = scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None], enable_gqa=grouped)
    out = out.masked_fill(sees_none[:, None, :, None], 0.0)
    return out.transpose(1, 2).flatten(2)


class GatedCrossAttentionBlock(nn.Module):
    """`x += tanh(attn_gate) * attention; x += tanh(ff_gate) * feed-forward`; gates start at 0."""

    skips = True  # in a conversation without images

    def __init__(self, dim: int, dim_visual: int, dim_head: int = 64, heads: int = 8) -> None:
        super().__init__()
        self.attn = MaskedCrossAttention(dim, dim_visual, dim_head, heads)
        self.attn_gate = nn.Parameter(torch.zeros(1))
        self.ff = feed_forward(dim)
        self.ff_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, visual: Tensor, image_index: Tensor) -> Tensor:
        x = x + self.attn_gate.tanh() * self.attn(x, visual, image_index)
        return x + self.ff_gate.tanh() * self.ff(x)


class GatedLlamaBlock(nn.Module):
    """The same of LLaMA's building blocks.

    Transformers' `IdeficsGatedCrossAttentionLayer`, whose feed-forward runs whether there are
    images or not, and `MllamaCrossAttentionDecoderLayer`, which leaves tokens that see no image as
    they are. (There, attention's share of that is wrong when text stands before the first image:
    huggingface/transformers#39379. Here it is as in Meta's own code.)
    """

    def __init__(self, dim: int, dim_visual: int, config: GatedLlama) -> None:
        super().__init__()
        inner, epsilon = config.heads * config.dim_head, config.epsilon
        keys = config.kv_heads * config.dim_head
        self.skips = not config.blind  # in a conversation without images
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


class GatedDecoderLayer(nn.Module):
    """A LLaMA decoder layer with, where the interval asks for it, a gated block before it.

    It takes a decoder layer's place in `LlamaModel.layers`; `visual` and `image_index` reach it as
    keyword arguments that LlamaModel hands on untouched.

    Attributes:
        checkpointing: keep only the layer's input for the backward pass and compute the layer
            again there (arXiv 1604.06174), the gated block included; gradients stay the same.
    """

    def __init__(
        self,
        decoder_layer: nn.Module,
        gated_cross_attn_layer: GatedCrossAttentionBlock | GatedLlamaBlock | None,
    ) -> None:
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
