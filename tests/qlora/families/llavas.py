"""LLaVAs with random weights, in the layouts that people have."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from tests.conftest import FIXTURE

IMAGE = 400  # the first id after the tokenizer's


@dataclass(frozen=True)
class Size:
    """Sizes that differ in everything that is read off the files."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vision: int
    vision_inner: int
    vision_layers: int
    vision_heads: int
    image: int
    patch: int


SIZES = (
    Size(64, 160, 3, 4, 4, 48, 96, 3, 3, 28, 7),
    Size(96, 200, 2, 3, 1, 64, 100, 4, 4, 36, 9),
)


def reference(size: Size, seed: int = 0) -> Any:
    """transformers' model with every parameter random, biases and norms included."""
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision,
            intermediate_size=size.vision_inner,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=size.vision_heads,
            image_size=size.image,
            patch_size=size.patch,
            projection_dim=16,
        ),
        text_config=LlamaConfig(
            hidden_size=size.hidden,
            intermediate_size=size.inner,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.kv_heads,
            vocab_size=IMAGE + 4,
            max_position_embeddings=512,
        ),
        image_token_index=IMAGE,
        image_seq_length=(size.image // size.patch) ** 2,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    for parameter in model.parameters():
        spread = parameter.shape[-1] ** -0.5 if parameter.dim() > 1 else 0.1
        center = 1.0 if parameter.dim() == 1 and parameter.mean() > 0.5 else 0.0
        parameter.data = center + spread * torch.randn_like(parameter)
    return model


def copy_tokenizer(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(FIXTURE / "llama" / "tokenizer.model", folder)
    (folder / "added_tokens.json").write_text(json.dumps({"<image>": IMAGE, "<pad>": IMAGE + 1}))


def write_hugging_face(model: Any, folder: Path) -> Path:
    """As `save_pretrained` writes it."""
    copy_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


def write_tower(model: Any, folder: Path) -> Path:
    """The CLIP that a LLaVA of the original layout names, as transformers 4 wrote it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config.vision_config.to_dict() | {"model_type": "clip_vision_model"}
    (folder / "config.json").write_text(json.dumps(config))
    tower = model.model.vision_tower.state_dict()
    tensors = {f"vision_model.{name.removeprefix('vision_model.')}": t for name, t in tower.items()}
    torch.save(tensors, folder / "pytorch_model.bin")
    return folder


def language_tensors(model: Any) -> dict[str, torch.Tensor]:
    """The language model under LLaMA's own names."""
    inner = model.model.language_model.state_dict()
    return {f"model.{name}": t for name, t in inner.items()} | {
        "lm_head.weight": model.lm_head.weight.data
    }


def projector_tensors(model: Any, prefix: str) -> dict[str, torch.Tensor]:
    """The projector as the original repository numbers it."""
    state = model.model.multi_modal_projector.state_dict()
    number = {"linear_1": 0, "linear_2": 2}
    return {
        f"{prefix}mm_projector.{number[name.split('.')[0]]}.{name.split('.')[1]}": t
        for name, t in state.items()
    }


def original_config(model: Any, **change: Any) -> dict[str, Any]:
    text = model.config.text_config.to_dict()
    return {
        **text,
        "model_type": "llava_llama",
        "mm_vision_tower": "clip",
        "mm_projector_type": "mlp2x_gelu",
        "mm_hidden_size": model.config.vision_config.hidden_size,
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "image_aspect_ratio": "pad",
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "quantization_config": {"quant_method": "bitsandbytes"},  # QLoRA runs leave it here
    } | change


def write_original(model: Any, folder: Path, separate: bool) -> Path:
    """The original repository's folder, with the projector inside or in `mm_projector.bin`."""
    copy_tokenizer(folder)
    write_tower(model, folder / "clip")
    (folder / "config.json").write_text(json.dumps(original_config(model)))
    tensors, projector = language_tensors(model), projector_tensors(model, "model.")
    if separate:
        torch.save(projector, folder / "mm_projector.bin")
    torch.save(tensors if separate else tensors | projector, folder / "pytorch_model.bin")
    return folder


def write_base(model: Any, folder: Path) -> Path:
    """The language model alone: what a LoRA run started from."""
    copy_tokenizer(folder)
    config = model.config.text_config.to_dict() | {"model_type": "llama"}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(language_tensors(model), folder / "pytorch_model.bin")
    return folder


def write_lora(model: Any, folder: Path, rank: int = 4, alpha: int = 8) -> Path:
    """A LoRA run's folder; afterwards `model` is what training ended with."""
    folder.mkdir(parents=True)
    write_tower(model, folder / "clip")
    (folder / "config.json").write_text(json.dumps(original_config(model)))
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": alpha, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    state = {}
    for i, layer in enumerate(model.model.language_model.layers):
        weight = layer.self_attn.q_proj.weight.data
        a = torch.randn(rank, weight.shape[1]) * weight.shape[1] ** -0.5
        b = torch.randn(weight.shape[0], rank) * 0.1
        key = f"base_model.model.model.layers.{i}.self_attn.q_proj.lora_"
        state |= {f"{key}A.weight": a, f"{key}B.weight": b}
        weight += alpha / rank * b @ a
    torch.save(state, folder / "adapter_model.bin")
    projector = model.model.multi_modal_projector
    for parameter in projector.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    torch.save(
        projector_tensors(model, "base_model.model.model."), folder / "non_lora_trainables.bin"
    )
    return folder
