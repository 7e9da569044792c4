"""Sizes of published models, known before anything is downloaded.

Contract: what the published files of such a model give.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from transformers import LlamaConfig, MllamaVisionConfig

from lite.bundle.attend import FOLLOWING, NEIGHBOURS, OWN
from lite.image.preprocessing import CROP, PAD, SQUASH, TILES, Preprocessing
from lite.text.template import IDEFICS, LLAMA_3, LLAVA_V1, MMGPT, OWL
from qlora.families.flamingo import ADDED_TOKENS
from qlora.model.config import ModelConfig
from qlora.model.connectors.abstractor import Abstractor
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.connectors.projector import Projector
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.encoders.tiled import TiledEncoder
from qlora.model.injection.gated import Gated
from qlora.model.injection.gated_llama import GatedLlama
from qlora.model.injection.spliced import Spliced


def llama(hidden: int, layers: int, heads: int, feed_forward: int, **others: Any) -> LlamaConfig:
    """A LLaMA's sizes."""
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


def clip(width: int, layers: int, side: int, **vision: Any) -> dict[str, Any]:
    """An open_clip config, whose text tower nobody builds."""
    sizes = {"image_size": side, "layers": layers, "width": width, "patch_size": 14}
    text = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 2, "layers": 1}
    tower = {"head_width": 64, **sizes, **vision}
    return {"embed_dim": 64, "quick_gelu": True, "vision_cfg": tower, "text_cfg": text}


def flamingo(language: LlamaConfig, interval: int, tower: dict[str, Any]) -> ModelConfig:
    """OpenFlamingo's sizes, with a gated block before every `interval`-th layer."""
    vision = tower["vision_cfg"]
    return ModelConfig(
        family="mmgpt",
        llama=language,
        encoder=ClipEncoder(tower),
        connector=Perceiver(width=vision["width"], latents=64, depth=6, heads=8),
        injection=Gated(tuple(range(interval - 1, language.num_hidden_layers, interval)), 8),
        attend=FOLLOWING,
        preprocessing=Preprocessing(vision["image_size"], fit=CROP),
        embedding_rows=language.vocab_size + len(ADDED_TOKENS),
        template=MMGPT.name,
    )


_LLAMA_7B = llama(4096, 32, 32, 11008)
MMGPT_9B = flamingo(_LLAMA_7B, 4, clip(1024, 24, 224))

OWL_7B = replace(
    MMGPT_9B,
    family="mplug-owl",
    encoder=ClipEncoder(clip(1024, 24, 224), keep_class=True, final_norm=True, epsilon=1e-6),
    connector=Abstractor(
        dim=1024, dim_media=1024, queries=64, depth=6, heads=16, inner=2816, width=4096
    ),
    injection=Spliced(),
    attend=OWN,
    preprocessing=Preprocessing(224, fit=SQUASH),
    template=OWL.name,
)
LLAVA_7B = replace(
    MMGPT_9B,
    family="llava",
    # The last layer's output is not used.
    encoder=ClipEncoder(clip(1024, 23, 336)),
    connector=Projector(dim_media=1024, width=4096, depth=2, latents=576),
    injection=Spliced(),
    attend=OWN,
    preprocessing=Preprocessing(336, fit=PAD),
    template=LLAVA_V1.name,
)
_IDEFICS_BLOCKS = GatedLlama(
    layers=tuple(range(0, 32, 4)),
    heads=32,
    kv_heads=32,
    dim_head=128,
    inner=11008,
    head_norms=True,
    gates=1,
    epsilon=1e-6,
    always=True,
)
IDEFICS_9B = replace(
    MMGPT_9B,
    family="idefics",
    encoder=ClipEncoder(
        clip(1280, 32, 224, head_width=80) | {"quick_gelu": False}, keep_class=True
    ),
    connector=Perceiver(1280, 64, 6, 16, dim_head=96, head_norms=True, activation="relu"),
    injection=_IDEFICS_BLOCKS,
    preprocessing=Preprocessing(224, fit=SQUASH),
    template=IDEFICS.name,
)
_TILED = TiledEncoder(MllamaVisionConfig())
_TILE, _MOST = _TILED.vision.image_size, _TILED.vision.max_num_tiles
MLLAMA_11B = replace(
    MMGPT_9B,
    family="mllama",
    llama=llama(4096, 32, 32, 14336, num_key_value_heads=8, vocab_size=128256, rms_norm_eps=1e-5),
    encoder=_TILED,
    connector=Projector(dim_media=_TILED.width, width=4096, depth=1, latents=_TILED.tokens),
    injection=replace(
        _IDEFICS_BLOCKS,
        # Layers 3, 8, 13 and so on of 40, counted without each other.
        layers=tuple(range(3, 32, 4)),
        kv_heads=8,
        inner=14336,
        epsilon=1e-5,
        always=False,
    ),
    attend=NEIGHBOURS,
    preprocessing=Preprocessing(_TILE, fit=TILES, tiles=_MOST),
    embedding_rows=128256 + 8,
    template=LLAMA_3.name,
)

# By the names of `qlora.families.models`.
SIZES = {
    "mmgpt-9b": MMGPT_9B,
    "mplug-owl-7b": OWL_7B,
    "llava-1.5-7b": LLAVA_7B,
    "idefics-9b": IDEFICS_9B,
    "llama-3.2-11b-vision": MLLAMA_11B,
}
