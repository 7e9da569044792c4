"""Adapters that peft makes on transformers' own classes, merged: the logits equal peft's merge."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from lite.errors import BadInput
from qlora.families.recognition import read_model
from qlora.model import VisionLanguageModel
from tests.qlora.families import llavas, mllamas, test_idefics, test_llava
from tests.refusals import check_one_sentence

ATTENTION = ["q_proj", "v_proj"]


def adapted(model: Any, folder: Path, targets: Any, **settings: Any) -> Any:
    """The model with a random adapter merged by peft, which is saved in `folder`."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, **settings)
    wrapped = peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    wrapped.save_pretrained(folder)
    return wrapped.merge_and_unload().eval()


def check_llava(tmp_path: Path, targets: Any, **settings: Any) -> None:
    model = llavas.reference(llavas.SIZES[0])
    folder = llavas.write_hugging_face(model, tmp_path / "model")
    model.name_or_path = str(folder)
    merged = adapted(model, tmp_path / "lora", targets, **settings)
    plain, weights = read_model(folder), read_model(folder, tmp_path / "lora")
    ids = test_llava.prompt(weights.config.latents, 1)
    pixels = test_llava.pixels_of(weights, test_llava.pictures(1))
    expected = test_llava.expected_of(merged, ids, pixels)
    found = test_llava.logits_of(weights, ids, pixels)
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(test_llava.logits_of(plain, ids, pixels) - expected).max() > 0.01


@pytest.mark.parametrize(
    "targets",
    [ATTENTION, "all-linear", ["fc1", "linear_2"], ["k_proj"], ["out_proj", "down_proj"]],
    ids=str,
)
def test_llava_with_tower_and_projector(tmp_path: Path, targets: Any) -> None:
    check_llava(tmp_path, targets)


def test_llava_with_ranks_by_pattern(tmp_path: Path) -> None:
    check_llava(tmp_path, ATTENTION, rank_pattern={".*vision_tower.*q_proj": 2}, use_rslora=True)


@pytest.mark.parametrize(
    "targets", [ATTENTION, ["fc1", "c_proj", "output_proj", "o_proj"]], ids=str
)
def test_idefics_with_tower_resampler_and_gated_blocks(tmp_path: Path, targets: Any) -> None:
    model = test_idefics.reference(test_idefics.SIZES[0])
    folder = test_idefics.write(model, tmp_path / "model")
    merged = adapted(model, tmp_path / "lora", targets)
    weights = read_model(folder, tmp_path / "lora")
    ids, images = test_idefics.prompt(1), test_idefics.pictures(1)
    pixels = test_idefics.pixels_of(weights, images)
    with torch.no_grad():
        found = VisionLanguageModel.from_weights(weights)(torch.from_numpy(ids), pixels)
    expected = test_idefics.expected_of(merged, ids, pixels)
    assert np.abs(found.numpy() - expected).max() <= 1e-4


@pytest.mark.parametrize("targets", [ATTENTION, "all-linear"], ids=str)
def test_mllama_with_tower_and_projector(tmp_path: Path, targets: Any) -> None:
    model = mllamas.reference(mllamas.SIZES[0])
    folder = mllamas.write(model, tmp_path / "model")
    merged = adapted(model, tmp_path / "lora", targets)
    weights = read_model(folder, tmp_path / "lora")
    ids = np.array([300, 5, mllamas.IMAGE, 20, 31, 7])
    images = mllamas.pictures(1)
    pixels = test_llava.pixels_of(weights, images)
    with torch.no_grad():
        found = VisionLanguageModel.from_weights(weights)(torch.from_numpy(ids), pixels)
    expected = mllamas.expected_of(merged, ids, images)
    assert np.abs(found.numpy() - expected).max() <= 1e-4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda name: name.replace("layers.0", "layers.77"), "layers.77"),
        (lambda name: name.replace("multi_modal_projector", "other"), "other"),
    ],
)
def test_what_the_model_does_not_have_is_named(
    tmp_path: Path, change: Callable[[str], str], named: str
) -> None:
    model = llavas.reference(llavas.SIZES[0])
    folder = llavas.write_hugging_face(model, tmp_path / "model")
    adapted(model, tmp_path / "lora", ["q_proj", "linear_1"])
    file = tmp_path / "lora" / "adapter_model.safetensors"
    moved = {
        change(name) if "language" in name or "multi" in name else name: tensor
        for name, tensor in load_file(file).items()
    }
    save_file(moved, file)
    with pytest.raises(BadInput) as error:
        read_model(folder, tmp_path / "lora")
    check_one_sentence(error, named)
