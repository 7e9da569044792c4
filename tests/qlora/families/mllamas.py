"""Llama-3.2-Vision models of transformers with random weights and open gates, and their folders."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import MllamaConfig, MllamaForConditionalGeneration
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil
from transformers.models.mllama.processing_mllama import (
    convert_sparse_cross_attention_mask_to_dense,
    get_cross_attention_token_mask,
)

VOCABULARY = 320
IMAGE = VOCABULARY
SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
MERGES = (("t", "h"), ("th", "e"), ("Ġ", "the"), ("Ġ", "a"), ("i", "n"))
SPLIT = r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Layouts of 4 tiles with grouped keys, and of 2 with a block before the first layer.
SIZES: tuple[dict[str, Any], ...] = (
    {
        "text": {
            "hidden_size": 64,
            "intermediate_size": 160,
            "num_hidden_layers": 5,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "cross_attention_layers": [1, 3],
        },
        "vision": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_global_layers": 2,
            "attention_heads": 2,
            "image_size": 28,
            "patch_size": 7,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 2],
        },
    },
    {
        "text": {
            "hidden_size": 96,
            "intermediate_size": 200,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "cross_attention_layers": [0, 2],
        },
        "vision": {
            "hidden_size": 48,
            "intermediate_size": 100,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 3,
            "image_size": 27,
            "patch_size": 9,
            "max_num_tiles": 2,
            "intermediate_layers_indices": [1],
            "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]],
        },
    },
)


def reference(size: dict[str, Any]) -> Any:
    vision = size["vision"]
    outputs = 1 + len(vision["intermediate_layers_indices"])
    config = MllamaConfig(
        vision_config={**vision, "vision_output_dim": outputs * vision["hidden_size"]},
        text_config={
            **size["text"],
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            "rope_parameters": ROPE,
            "bos_token_id": 300,
            "eos_token_id": 303,
            "pad_token_id": None,
        },
        image_token_index=IMAGE,
    )
    torch.manual_seed(0)
    model = MllamaForConditionalGeneration(config).eval()
    for name, parameter in model.named_parameters():
        norm = parameter.dim() == 1 and name.endswith("norm.weight")
        norm = norm or ("layernorm" in name and name.endswith("weight"))
        spread = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.1
        spread = (
            0.2
            if "tile_embedding" in name or name.endswith("embedding.embedding.weight")
            else spread
        )
        center = 1.0 if norm else 0.5 if "gate" in name and parameter.numel() == 1 else 0.0
        parameter.data = center + spread * torch.randn_like(parameter)
    return model


def write_tokenizer(folder: Path) -> Tokenizer:
    """A byte-level tokenizer of Llama 3's kind; returns it with its special tokens."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = [*letters, *("".join(pair) for pair in MERGES)]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    padding = {f"<|unused_{i}|>": i for i in range(len(pieces), 300)}
    tokenizer = Tokenizer(BPE(vocab={**vocab, **padding}, merges=list(MERGES), ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    reserved = [f"<|reserved_{i}|>" for i in range(VOCABULARY - 300 - len(SPECIAL))]
    tokenizer.add_special_tokens([AddedToken(t) for t in (*SPECIAL, *reserved, "<|image|>")])
    assert tokenizer.token_to_id("<|image|>") == IMAGE
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def processor(model: Any) -> MllamaImageProcessorPil:
    vision = model.config.vision_config
    side = {"height": vision.image_size, "width": vision.image_size}
    return MllamaImageProcessorPil(size=side, max_image_tiles=vision.max_num_tiles)


def write(model: Any, folder: Path) -> Path:
    """As `save_pretrained` writes it, with tokenizer and preprocessing."""
    model.save_pretrained(folder)
    write_tokenizer(folder)
    processor(model).save_pretrained(folder)
    return folder


def pictures(count: int) -> list[Image.Image]:
    """Pictures of different layouts: wide, tall and almost square."""
    random = np.random.default_rng(count)
    shapes = ((40, 90, 3), (90, 30, 3), (80, 75, 3))
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes[:count]]


def inputs_of(model: Any, ids: np.ndarray, images: list[Image.Image]) -> dict[str, torch.Tensor]:
    """What transformers' processor gives for these ids and pictures."""
    given = {"input_ids": torch.from_numpy(ids)[None]}
    if images:
        seen = processor(model)(images, return_tensors="pt")
        tiles = seen.pop("num_tiles")
        mask = convert_sparse_cross_attention_mask_to_dense(
            [get_cross_attention_token_mask(ids.tolist(), IMAGE)],
            tiles,
            model.config.vision_config.max_num_tiles,
            len(ids),
        )
        given |= {**seen, "cross_attention_mask": torch.from_numpy(mask)}
    return given


@torch.no_grad()
def expected_of(model: Any, ids: np.ndarray, images: list[Image.Image]) -> np.ndarray:
    """Logits, with attention's output zeroed where a token sees no image, as Meta's own code does.

    transformers zeroes the feed-forward's only (issue 39379), so that text before the first image
    would see it.
    """
    given = inputs_of(model, ids, images)
    hooks = []
    if images:
        sees = given["cross_attention_mask"].flatten(2).any(-1)[..., None]
        for layer in model.model.language_model.layers:
            if hasattr(layer, "cross_attn"):
                hooks.append(
                    layer.cross_attn.register_forward_hook(
                        lambda module, args, out: (out[0] * sees, *out[1:])
                    )
                )
    logits = model(**given).logits[0].numpy()
    for hook in hooks:
        hook.remove()
    return logits
