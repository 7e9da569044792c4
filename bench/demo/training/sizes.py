"""Sizes of the demo model: what fits into 30 MB as int8, with widths that 4-bit rows like (64)."""

from __future__ import annotations

from typing import Any

# Pixels along a side of a picture.
SIDE = 112
VOCABULARY = 2048

CLIP: dict[str, Any] = {
    "embed_dim": 192,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": SIDE,
        "patch_size": 8,
        "width": 256,
        "layers": 3,
        "head_width": 64,
        # 3 x 3 convolutions instead of the patch embedding: [channels, stride] each
        # (arXiv 2106.14881). They learn what a thing looks like wherever it is.
        "stem": [[48, 2], [96, 2], [96, 1], [192, 2], [192, 1], [192, 1]],
        # Patch tokens carry the content where their mean is what is contrasted.
        "pool_type": "avg",
        "final_ln_after_pool": True,
    },
    "text_cfg": {
        "context_length": 64,
        "vocab_size": VOCABULARY + 1,
        "width": 192,
        "heads": 3,
        "layers": 2,
    },
}

LLAMA: dict[str, Any] = {
    "hidden_size": 320,
    "intermediate_size": 832,
    "num_hidden_layers": 8,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": VOCABULARY,
}

# Of the resampler, and of the gated blocks, one before every second layer.
LATENTS, DEPTH, HEADS, INTERVAL = 64, 2, 8, 2
