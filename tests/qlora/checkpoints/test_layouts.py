"""Folders in other layouts, quantized weights and files that nobody reads are told by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import save_file

from lite.errors import BadInput
from qlora.checkpoints.llama import read_llama
from qlora.checkpoints.lora import read_lora, refuse_adapter_beside
from qlora.checkpoints.sources import open_tensors
from qlora.families.recognition import read_model
from tests.conftest import FIXTURE
from tests.refusals import check_one_sentence

WEIGHTS = {"model.norm.weight": torch.ones(4)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(FIXTURE / "llama", tmp_path / "llama")
    return tmp_path / "llama"


def check_refused(call: Any, *needles: object) -> None:
    with pytest.raises(BadInput) as error:
        call()
    check_one_sentence(error, *needles)


def test_weights_of_bitsandbytes_are_told_by_its_name(tmp_path: Path) -> None:
    """With the tensors that bitsandbytes itself makes of a matrix, as transformers saves them."""
    codes, state = bitsandbytes.functional.quantize_4bit(torch.randn(64, 64), quant_type="nf4")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = {f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}
    save_file({name: codes, **packed}, tmp_path / "model.safetensors")
    check_refused(lambda: open_tensors(tmp_path), "bitsandbytes", name)
    (tmp_path / "model.safetensors").unlink()
    eight = {name: codes, name.replace("weight", "SCB"): torch.ones(64)}
    save_file(eight, tmp_path / "model.safetensors")
    check_refused(lambda: open_tensors(tmp_path), "bitsandbytes", "SCB")


@pytest.mark.parametrize("extra", ["mm_projector.bin", "vision.safetensors", "model-extra.bin"])
def test_weights_that_nobody_reads_are_refused(tmp_path: Path, extra: str) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    (tmp_path / extra).write_bytes(b"weights")
    check_refused(lambda: open_tensors(tmp_path), extra)
    assert set(open_tensors(tmp_path, besides=[extra])) == set(WEIGHTS)


@pytest.mark.parametrize(
    "extra",
    [
        *("optimizer.pt", "scheduler.pt", "rng_state_3.pth", "training_args.bin"),
        *("pytorch_model.bin", "pytorch_model-00001-of-00002.bin", "consolidated.safetensors"),
    ],
)
def test_a_trainers_state_and_other_formats_are_no_weights(tmp_path: Path, extra: str) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    (tmp_path / extra).write_bytes(b"state")
    assert set(open_tensors(tmp_path)) == set(WEIGHTS)


def test_an_adapter_as_a_model_is_told(tmp_path: Path) -> None:
    config = {"peft_type": "LORA", "base_model_name_or_path": "llava-hf/llava-1.5-7b-hf"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    for read in (read_model, read_llama):
        check_refused(lambda: read(tmp_path), "--lora", "llava-hf/llava-1.5-7b-hf")  # noqa: B023


def test_metas_own_layout_is_told(tmp_path: Path) -> None:
    (tmp_path / "consolidated.00.pth").write_bytes(b"weights")
    check_refused(lambda: read_llama(tmp_path), "consolidated", "convert_llama_weights_to_hf.py")


def test_an_adapter_beside_the_weights_is_merged_or_refused(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"")
    check_refused(lambda: refuse_adapter_beside(folder, None), "adapter_model.safetensors", folder)
    check_refused(lambda: refuse_adapter_beside(folder, folder.parent), "adapter_config.json")
    refuse_adapter_beside(folder, folder)


def test_folders_that_are_no_adapters_are_told(folder: Path, tmp_path: Path) -> None:
    check_refused(lambda: read_lora(folder), "holds a model instead of an adapter")
    nested = tmp_path / "runs" / "checkpoint-200"
    nested.mkdir(parents=True)
    (nested / "adapter_config.json").write_text("{}")
    check_refused(lambda: read_lora(tmp_path / "runs"), nested)


def test_json_with_a_byte_order_mark_is_read(folder: Path) -> None:
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config, encoding="utf-8-sig")
    assert read_llama(folder).config.to_dict() == read_llama(FIXTURE / "llama").config.to_dict()
