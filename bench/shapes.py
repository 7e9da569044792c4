"""Sizes of models with random weights, for benchmarks that must not need a download.

Contract: the published models of `qlora.families.models`, and two smaller ones of the first
family; `9b` is short for the published one of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qlora.families.models import MODELS

if TYPE_CHECKING:
    from qlora.model import ModelConfig

SHAPES = ("tiny", "1b", "9b", *MODELS)


def config_of(shape: str) -> ModelConfig:
    """The sizes of one of `SHAPES`."""
    from qlora.families.flamingo import flamingo_sizes
    from qlora.families.sizes import clip, llama

    if shape == "tiny":
        return flamingo_sizes(llama(64, 4, 4, 160, vocab_size=320), 2, clip(64, 2, 28))
    if shape == "1b":
        return flamingo_sizes(llama(2048, 16, 16, 5504), 4, clip(768, 12, 224))
    return MODELS["mmgpt-9b" if shape == "9b" else shape].config
