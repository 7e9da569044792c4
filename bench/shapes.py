"""Sizes of models that people have, for benchmarks that must not need a download.

Contract: `SHAPES[name]` is the configuration that the published files of such a model give.
"""

from __future__ import annotations

from qlora.plan.known import (
    IDEFICS_9B,
    LLAVA_7B,
    MLLAMA_11B,
    MMGPT_9B,
    OWL_7B,
    clip,
    flamingo,
    llama,
)

SHAPES = {
    "tiny": flamingo(llama(64, 4, 4, 160, vocab_size=320), 2, clip(64, 2, 28)),
    "1b": flamingo(llama(2048, 16, 16, 5504), 4, clip(768, 12, 224)),
    # LLaMA-7B, OpenFlamingo's gated blocks before every fourth layer, CLIP ViT-L/14.
    "9b": MMGPT_9B,
    "mplug-owl-7b": OWL_7B,
    "llava-1.5-7b": LLAVA_7B,
    "idefics-9b": IDEFICS_9B,
    "llama-3.2-11b-vision": MLLAMA_11B,
}
