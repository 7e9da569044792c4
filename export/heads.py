"""Attention heads as ONNX Runtime takes them: their padded width, and the angles that rotate them.

Contract: scores and outputs are those of the model's own width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qlora.checkpoints.llama import LLAMA3
from qlora.model.config import ModelConfig

# ONNX Runtime's GroupQueryAttention rotates heads of a multiple of 16 only.
HEAD_MULTIPLE = 16


def padded_head_dim(head_dim: int) -> int:
    """The head width that the graph works with: `head_dim` rounded up to a multiple of 16."""
    return -(-head_dim // HEAD_MULTIPLE) * HEAD_MULTIPLE


def pad_heads(weight: np.ndarray, heads: int, halves: bool) -> np.ndarray:
    """Pad each head's rows with zeros to `padded_head_dim`; scores and outputs stay the same.

    Args:
        weight: `[heads * d, in]`.
        heads: number of heads.
        halves: pad after each half of a head, because rotary embedding pairs row i with row
            i + d / 2 (queries and keys); otherwise at the head's end (values).

    Returns:
        `[heads * padded, in]`.
    """
    rows, columns = weight.shape
    head_dim = rows // heads
    parts = 2 if halves else 1
    extra = (padded_head_dim(head_dim) - head_dim) // parts
    shaped = weight.reshape(heads, parts, head_dim // parts, columns)
    return np.pad(shaped, ((0, 0), (0, 0), (0, extra), (0, 0))).reshape(-1, columns)


def rotary_tables(config: ModelConfig) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of every position's angles, `[context, padded_head_dim / 2]` each.

    RoFormer (arXiv 2104.09864) as in transformers' `LlamaRotaryEmbedding`: angles in float32.
    """
    llama = config.llama
    theta = llama.rope_parameters["rope_theta"]
    exponent = np.arange(0, llama.head_dim, 2, dtype=np.float32) / np.float32(llama.head_dim)
    frequencies = 1.0 / np.power(np.float32(theta), exponent, dtype=np.float32)
    frequencies = scaled_frequencies(frequencies, llama.rope_parameters)
    positions = np.arange(llama.max_position_embeddings, dtype=np.float32)
    angles = np.outer(positions, frequencies).astype(np.float32)
    padding = padded_head_dim(llama.head_dim) // 2 - angles.shape[1]
    angles = np.pad(angles, ((0, 0), (0, padding)))
    return np.cos(angles), np.sin(angles)


def scaled_frequencies(frequencies: np.ndarray, rope: Mapping[str, Any]) -> np.ndarray:
    """Rotary frequencies as the config scales them.

    Llama 3.1 divides those of waves longer than the context of its pretraining by a factor, leaves
    the short ones, and goes from one to the other in between; as transformers'
    `_compute_llama3_parameters`.
    """
    if rope.get("rope_type") != LLAMA3:
        return frequencies
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    waves = rope["original_max_position_embeddings"] * frequencies / (2 * np.pi)  # in the context
    kept = np.clip((waves - low) / (high - low), 0, 1)
    return (frequencies * (kept + (1 - kept) / rope["factor"])).astype(np.float32)
