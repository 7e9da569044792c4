"""Adapter folders of PEFT merge as PEFT merges them; what is more than LoRA is refused."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft.utils.other import get_pattern_key
from safetensors.torch import load_file, save_file
from torch import nn

from qlora.checkpoints.adapter_config import AdapterConfig
from qlora.checkpoints.lora import read_lora
from tests.refusals import refused

check_refused = partial(refused, read_lora)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj = nn.Linear(6, 4, bias=False), nn.Linear(6, 4, bias=False)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(), Layer()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return sum(layer.q_proj(x) + layer.k_proj(x) for layer in self.layers)  # type: ignore[return-value]


def adapter(folder: Path, **settings: Any) -> tuple[Path, nn.Module]:
    """An adapter folder as PEFT writes it, with non-zero B, and the model that wrote it."""
    options = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj"]} | settings
    model = peft.get_peft_model(Model(), peft.LoraConfig(**options))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    model.save_pretrained(folder)
    return folder, model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.k_proj": 3}},
        {"rank_pattern": {"layers.0.*": 2, "^layers.1.q_proj": 3}, "use_rslora": True},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.1},
    ],
)
def test_peft_folders_merge_as_peft_merges_them(tmp_path: Path, settings: dict[str, Any]) -> None:
    folder, model = adapter(tmp_path / "adapter", **settings)
    lora = read_lora(folder)
    assert lora.path == folder
    base = {
        name.removesuffix(".base_layer"): module.weight.clone()
        for name, module in model.base_model.model.named_modules()
        if name.endswith(".base_layer")
    }
    merged = model.merge_and_unload()
    assert set(lora.deltas) == set(base)
    for name, delta in lora.deltas.items():
        weight = merged.get_submodule(name).weight
        assert torch.allclose(base[name] + delta.delta(), weight, atol=1e-6)


@pytest.mark.parametrize("module", ["layers.1.q_proj", "layers.11.q_proj", "q_proj", "x.k_proj"])
def test_patterns_match_as_in_peft(tmp_path: Path, module: str) -> None:
    patterns = {"1.q_proj": 2, "^q_proj": 3, "layers.*": 5, "k_proj|v": 7}
    config = AdapterConfig(1, 1.0, patterns, {}, False)
    assert config.rank(module) == patterns.get(get_pattern_key(patterns.keys(), module), 1)


def test_an_adapter_in_torch_format_reads(tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path)
    expected = read_lora(folder).deltas
    torch.save(load_file(folder / "adapter_model.safetensors"), folder / "adapter_model.bin")
    (folder / "adapter_model.safetensors").unlink()
    assert set(read_lora(folder).deltas) == set(expected)


def change_config(folder: Path, **values: object) -> Path:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | values))
    return folder


@pytest.mark.parametrize(
    "values",
    [
        {"use_dora": True},
        {"modules_to_save": ["lm_head"]},
        {"bias": "all"},
        {"lora_bias": True},
        {"fan_in_fan_out": True},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["w"]},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "loftq"},
        {"invented_later": 1},
        {"peft_type": "IA3"},
        {"r": 5},
        {"r": None},
        {"lora_alpha": "8"},
        {"rank_pattern": {"(": 4}},
        {"rank_pattern": [1]},
        {"alpha_pattern": {"q_proj": None}},
    ],
)
def test_adapters_that_are_more_than_lora_are_refused(
    tmp_path: Path, values: dict[str, object]
) -> None:
    folder, _ = adapter(tmp_path)
    check_refused(change_config(folder, **values), "adapter_config.json")


def test_weights_beside_the_lora_matrices_are_named(tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path)
    name = "base_model.model.layers.0.q_proj.lora_magnitude_vector"
    save_file({name: torch.ones(4)}, folder / "adapter_model.safetensors")
    check_refused(folder, name)


@pytest.mark.parametrize("lost", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_folder_is_refused(tmp_path: Path, lost: str) -> None:
    folder, _ = adapter(tmp_path)
    (folder / lost).unlink()
    check_refused(folder, lost)


def test_one_file_of_an_adapter_folder_is_refused(tmp_path: Path) -> None:
    folder, _ = adapter(tmp_path)
    check_refused(folder / "adapter_model.safetensors", "adapter_config.json")
