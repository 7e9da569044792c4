"""A complete model of tiny size with random weights, in the layouts that published ones have.

Contract: same seed and sizes, same files. It knows nothing and answers nonsense; it is there to
try every command without a download, and for tests to make models of other sizes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lite.bundle.attend import FOLLOWING
from lite.text.template import MMGPT
from qlora.checkpoints.clip_visual import STEM, clip_visual
from qlora.families.models import Checkpoints
from qlora.model.layers import DIM_HEAD
from qlora.tiny.bpe import train_bpe

HEADS = 8  # of resampler and gated blocks, as OpenFlamingo fixes them
LORA_RANK = 16
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED_TARGETS = ("attn.to_q", "attn.to_kv", "attn.to_out", "ff.1", "ff.3")

# Enough words for a vocabulary of a few hundred pieces.
CORPUS = (
    *MMGPT.stops,
    MMGPT.system,
    "What is in the image? Two dogs sit on the table beside a red cup and a blue plate.",
    "How many people are there? There are three people, and one of them holds an umbrella.",
    "Where is the cat? The cat sleeps under the old wooden chair near the open window.",
    "What colour is the car? It is green, and it stands in front of a yellow house.",
    "How do I bake a lasagna? Put pasta, sauce and cheese in layers and bake for an hour.",
    "Compare the two images. The first shows a beach at noon, the second a street at night.",
    "Which animal is on the left? A horse is on the left and a sheep is on the right.",
    "Tell me about this place. It looks like a market where fruit, bread and flowers are sold.",
)


@dataclass(frozen=True)
class TinySizes:
    """Sizes to choose; the defaults are those of the test fixtures."""

    hidden: int = 64
    layers: int = 8
    heads: int = 4
    kv_heads: int = 4
    feed_forward: int = 160
    context: int = 2048
    interval: int = 4
    vision_width: int = 64
    vision_layers: int = 3
    vision_head_width: int = 16
    image_size: int = 56
    patch: int = 14
    stem: tuple[tuple[int, int], ...] = ()
    vocabulary: int = 400


def write_checkpoints(folder: Path, sizes: TinySizes | None = None, seed: int = 0) -> Checkpoints:
    """Write LLaMA folder, CLIP config and weights, OpenFlamingo checkpoint and LoRA.

    Args:
        folder: where they go; made if missing.
        sizes: of the model; None for the defaults.
        seed: of the random weights.

    Returns:
        Their paths, ready for the readers.
    """
    sizes, random = sizes or TinySizes(), _Random(seed)
    llama, clip = folder / "llama", folder / "clip.json"
    llama.mkdir(parents=True, exist_ok=True)
    pieces = train_bpe(CORPUS * 4, sizes.vocabulary, hard_vocab_limit=False)
    (llama / "tokenizer.model").write_bytes(pieces)
    _write_llama(llama, sizes, random)
    _write_clip(clip, folder / "clip.pt", sizes, random)
    torch.save(_flamingo_tensors(sizes, random), folder / "checkpoint.pt")
    torch.save(_lora(sizes, random), folder / "lora.pt")
    return Checkpoints(
        llama=str(llama),
        clip=str(clip),
        clip_weights=str(folder / "clip.pt"),
        flamingo=str(folder / "checkpoint.pt"),
        lora=str(folder / "lora.pt"),
        attend=FOLLOWING,
    )


class _Random:
    """Random tensors from one seed."""

    def __init__(self, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape: int, scale: float = 1.0) -> torch.Tensor:
        return torch.randn(*shape, generator=self._generator) * scale

    def matrix(self, rows: int, columns: int) -> torch.Tensor:
        """Keeps the size of what it multiplies."""
        return self(rows, columns, scale=columns**-0.5)

    def gain(self, width: int) -> torch.Tensor:
        return 1.0 + self(width, scale=0.1)


def _write_llama(folder: Path, s: TinySizes, random: _Random) -> None:
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": s.hidden,
        "intermediate_size": s.feed_forward,
        "max_position_embeddings": s.context,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "num_hidden_layers": s.layers,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "vocab_size": s.vocabulary,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    head = s.hidden // s.heads
    tensors = {"model.embed_tokens.weight": random(s.vocabulary, s.hidden)}
    for i in range(s.layers):
        for part, rows, columns in (
            ("self_attn.q_proj", s.heads * head, s.hidden),
            ("self_attn.k_proj", s.kv_heads * head, s.hidden),
            ("self_attn.v_proj", s.kv_heads * head, s.hidden),
            ("self_attn.o_proj", s.hidden, s.heads * head),
            ("mlp.gate_proj", s.feed_forward, s.hidden),
            ("mlp.up_proj", s.feed_forward, s.hidden),
            ("mlp.down_proj", s.hidden, s.feed_forward),
        ):
            tensors[f"model.layers.{i}.{part}.weight"] = random.matrix(rows, columns)
        for part in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{i}.{part}.weight"] = random.gain(s.hidden)
    tensors["model.norm.weight"] = random.gain(s.hidden)
    tensors["lm_head.weight"] = random.matrix(s.vocabulary, s.hidden)
    torch.save(tensors, folder / "pytorch_model.bin")


def _write_clip(config_path: Path, weights_path: Path, s: TinySizes, random: _Random) -> None:
    config: dict[str, Any] = {
        "embed_dim": 32,
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": s.image_size,
            "layers": s.vision_layers,
            "width": s.vision_width,
            "head_width": s.vision_head_width,
            "patch_size": s.patch,
        },
        "text_cfg": {
            "context_length": 8,
            "vocab_size": 16,
            "width": 32,
            "heads": 2,
            "layers": 1,
        },
    }
    if s.stem:
        config["vision_cfg"][STEM] = [[*layer] for layer in s.stem]
    config_path.write_text(json.dumps(config, indent=1))
    visual = clip_visual(config)
    tensors = {}
    for inner, tensor in visual.state_dict().items():
        name, shape = f"visual.{inner}", tuple(tensor.shape)
        if ".ln_" in name and name.endswith("weight"):
            tensors[name] = random.gain(*shape)
        else:
            tensors[name] = random(*shape, scale=0.05 if len(shape) < 2 else shape[-1] ** -0.5)
    torch.save(tensors, weights_path)


def _feed_forward(prefix: str, width: int, random: _Random) -> dict[str, torch.Tensor]:
    return {
        f"{prefix}.0.weight": random.gain(width),
        f"{prefix}.0.bias": random(width, scale=0.1),
        f"{prefix}.1.weight": random.matrix(4 * width, width),
        f"{prefix}.3.weight": random.matrix(width, 4 * width),
    }


def _flamingo_tensors(s: TinySizes, random: _Random) -> dict[str, torch.Tensor]:
    width, inner = s.vision_width, HEADS * DIM_HEAD
    tensors = {"perceiver.latents": random(64, width)}
    for i in range(6):
        attention = f"perceiver.layers.{i}.0"
        for norm in ("norm_media", "norm_latents"):
            tensors[f"{attention}.{norm}.weight"] = random.gain(width)
            tensors[f"{attention}.{norm}.bias"] = random(width, scale=0.1)
        tensors[f"{attention}.to_q.weight"] = random.matrix(inner, width)
        tensors[f"{attention}.to_kv.weight"] = random.matrix(2 * inner, width)
        tensors[f"{attention}.to_out.weight"] = random.matrix(width, inner)
        tensors |= _feed_forward(f"perceiver.layers.{i}.1", width, random)
    tensors["perceiver.norm.weight"] = random.gain(width)
    tensors["perceiver.norm.bias"] = random(width, scale=0.1)
    rows = s.vocabulary + 3
    tensors["lang_encoder.model.embed_tokens.weight"] = random(rows, s.hidden)
    for i in range(s.interval - 1, s.layers, s.interval):
        block = f"lang_encoder.model.layers.{i}.gated_cross_attn_layer"
        tensors[f"{block}.attn_gate"] = torch.tensor([0.7])
        tensors[f"{block}.ff_gate"] = torch.tensor([0.5])
        tensors[f"{block}.attn.norm.weight"] = random.gain(s.hidden)
        tensors[f"{block}.attn.norm.bias"] = random(s.hidden, scale=0.1)
        tensors[f"{block}.attn.to_q.weight"] = random.matrix(inner, s.hidden)
        tensors[f"{block}.attn.to_kv.weight"] = random.matrix(2 * inner, width)
        tensors[f"{block}.attn.to_out.weight"] = random.matrix(s.hidden, inner)
        tensors |= _feed_forward(f"{block}.ff", s.hidden, random)
    return tensors


def _lora(s: TinySizes, random: _Random) -> dict[str, object]:
    head, inner = s.hidden // s.heads, HEADS * DIM_HEAD
    shapes: dict[str, tuple[int, int]] = {}
    for i in range(s.layers):
        for target in LORA_TARGETS:
            rows = head * (s.kv_heads if target in ("k_proj", "v_proj") else s.heads)
            shapes[f"model.layers.{i}.decoder_layer.self_attn.{target}"] = (rows, s.hidden)
        if (i + 1) % s.interval == 0:
            gated = (
                (inner, s.hidden),
                (2 * inner, s.vision_width),
                (s.hidden, inner),
                (4 * s.hidden, s.hidden),
                (s.hidden, 4 * s.hidden),
            )
            block = f"model.layers.{i}.gated_cross_attn_layer"
            shapes |= {f"{block}.{t}": gated[j] for j, t in enumerate(GATED_TARGETS)}
    state = {}
    for path, (rows, columns) in shapes.items():
        key = f"module.lang_encoder.base_model.model.{path}"
        state[f"{key}.lora_A.weight"] = random.matrix(LORA_RANK, columns)
        state[f"{key}.lora_B.weight"] = random(rows, LORA_RANK, scale=0.05)
    tuning = {"lora": True, "lora_r": LORA_RANK, "lora_alpha": LORA_RANK}
    return {"model_state_dict": state, "tuning_config": tuning}
