"""Pieces of published sizes, for the `SIZES` of the families' files.

Contract: what the published files of such a part give.
"""

from __future__ import annotations

from typing import Any

from transformers import LlamaConfig


def llama(hidden: int, layers: int, heads: int, feed_forward: int, **others: Any) -> LlamaConfig:
    """A LLaMA's sizes; `others` as transformers calls them."""
    sizes = {"num_key_value_heads": heads, "vocab_size": 32000, "rms_norm_eps": 1e-6, **others}
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        **sizes,
    )


LLAMA_7B = llama(4096, 32, 32, 11008)


def clip(width: int, layers: int, side: int, **vision: Any) -> dict[str, Any]:
    """An open_clip config, whose text tower nobody builds."""
    sizes = {"image_size": side, "layers": layers, "width": width, "patch_size": 14}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    tower = {"head_width": 64, **sizes, **vision}
    return {"embed_dim": 64, "quick_gelu": True, "vision_cfg": tower, "text_cfg": text}
