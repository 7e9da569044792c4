"""Adapters that peft makes on transformers' own classes, merged: the logits equal peft's merge."""

import warnings
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
from qlora.model.adapters import adapter_parameters, add_adapters, load_adapter, save_adapter
from qlora.model.quantized import load_quantized
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


def made(family: str, folder: Path) -> tuple[Any, Path]:
    """transformers' model of a family, and its folder."""
    if family == "llava":
        model = llavas.reference(llavas.SIZES[0])
        return model, llavas.write_hugging_face(model, folder)
    if family == "idefics":
        model = test_idefics.reference(test_idefics.SIZES[0])
        return model, test_idefics.write(model, folder)
    model = mllamas.reference(mllamas.SIZES[0])
    return model, mllamas.write(model, folder)


@pytest.mark.parametrize("family", ["llava", "idefics", "mllama"])
@pytest.mark.parametrize("dora", [False, True])
def test_peft_over_transformers_reads_what_training_saves(
    tmp_path: Path, family: str, dora: bool
) -> None:
    """Every matrix is found by its name, and the logits of a text are those of our own model."""
    theirs, folder = made(family, tmp_path / "model")
    weights, images = read_model(folder), test_idefics.pictures(1)
    ours = load_quantized(weights, compute=torch.float32, base="none")
    targets = ["q_proj", "v_proj", "down_proj"]
    adapters = add_adapters(ours, rank=4, alpha=8, targets=targets, dora=dora)
    torch.manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapter_parameters(adapters).items():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    save_adapter(adapters, tmp_path / "lora", ours.config.spelling)

    saved = set(load_file(tmp_path / "lora" / "adapter_model.safetensors"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Found missing adapter keys")
        loaded = peft.PeftModel.from_pretrained(theirs, str(tmp_path / "lora")).eval()
    assert set(peft.get_peft_model_state_dict(loaded)) == saved

    ids, pixels = np.array([1, 20, 31, 45, 7]), None
    if family == "idefics":  # whose class in transformers wants an image
        ids, pixels = test_idefics.prompt(1), test_idefics.pixels_of(weights, images)
        expected = test_idefics.expected_of(loaded, ids, pixels)
    else:
        expected = test_llava.expected_of(loaded, ids, None)
    tokens = torch.from_numpy(ids)
    with torch.no_grad():
        found = ours(tokens, pixels).numpy()
        read = VisionLanguageModel.from_weights(read_model(folder, tmp_path / "lora"))
        merged = read(tokens, pixels).numpy()
    assert np.abs(found - expected).max() <= 1e-4
    assert np.abs(merged - expected).max() <= 1e-4

    again = add_adapters(
        load_quantized(weights, compute=torch.float32, base="none"),
        **{"rank": 4, "alpha": 8, "targets": targets, "dora": dora},
    )
    load_adapter(again, tmp_path / "lora", ours.config.spelling)
    values = adapter_parameters(again)
    assert all(torch.equal(values[n], p) for n, p in adapter_parameters(adapters).items())


def test_a_saved_adapter_of_our_own_names_is_still_read(tmp_path: Path) -> None:
    """As folders of earlier versions have them."""
    _, folder = made("llava", tmp_path / "model")
    model = load_quantized(read_model(folder), compute=torch.float32, base="none")
    adapters = add_adapters(model, rank=4, alpha=8, targets=["q_proj"])
    save_adapter(adapters, tmp_path / "lora")
    load_adapter(adapters, tmp_path / "lora", model.config.spelling)
    assert read_model(folder, tmp_path / "lora").lora is not None
