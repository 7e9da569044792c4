"""LLaVA of every layout against transformers, with random weights of two sizes."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import lite
from export.bundle import write_bundle
from export.precision import precision
from export.verify import kl_divergence
from lite.errors import BadInput
from lite.image.preprocessing import load_image, to_pixels
from qlora.families.recognition import read_model
from qlora.model import ModelWeights, VisionLanguageModel
from tests.qlora.families.llavas import (
    IMAGE,
    SIZES,
    original_config,
    projector_tensors,
    reference,
    write_base,
    write_hugging_face,
    write_lora,
    write_original,
    write_tower,
)
from tests.refusals import check_one_sentence


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(count)
    shapes = ((40, 70, 3), (90, 30, 3))
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes[:count]]


def prompt(places: int, images: int) -> np.ndarray:
    """Images that are neighbours, with text on both sides."""
    return np.array([1, 20, 31, *[IMAGE] * (places * images), 45, 50, 7, 8])


def pixels_of(weights: ModelWeights, images: list[Image.Image]) -> torch.Tensor | None:
    how = weights.config.preprocessing
    return (
        torch.from_numpy(np.stack([to_pixels(load_image(i), how) for i in images]))
        if images
        else None
    )


@torch.no_grad()
def expected_of(model: Any, ids: np.ndarray, pixels: torch.Tensor | None) -> np.ndarray:
    return model(input_ids=torch.from_numpy(ids)[None], pixel_values=pixels).logits[0].numpy()


@torch.no_grad()
def logits_of(weights: ModelWeights, ids: np.ndarray, pixels: torch.Tensor | None) -> np.ndarray:
    # The original layout gives `<image>` no id of the vocabulary.
    ids = np.where(ids == IMAGE, weights.special_ids["<image>"], ids)
    return VisionLanguageModel.from_weights(weights)(torch.from_numpy(ids), pixels).numpy()


@pytest.fixture(scope="module", params=SIZES, ids=["64", "96"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' model, and its folder."""
    model = reference(request.param)
    return model, write_hugging_face(model, tmp_path_factory.mktemp("llava") / "hf")


def test_torch_and_onnx_equal_transformers(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    places = weights.config.latents
    write_bundle(weights, tmp_path / "fp32", precision("fp32"), lambda bundle: [])
    bundle = lite.load(tmp_path / "fp32")
    for count in (0, 1, 2):
        images, ids = pictures(count), prompt(places, count)
        pixels = pixels_of(weights, images)
        expected = expected_of(model, ids, pixels)
        assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4
        assert np.abs(bundle.score(ids, images) - expected).max() <= 1e-3
        # From a cache that holds the beginning, whatever part of the images it ends in.
        seen = bundle.encode_images(images)
        if count:
            bundle.decoder.logits(ids[: 3 + places], seen[:1])
        assert np.abs(bundle.decoder.logits(ids, seen) - expected[-1]).max() <= 1e-3
        assert bundle.decoder.computed == (len(ids) - 3 - places if count else 1)


def test_int8_stays_close(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "int8", precision("int8"), lambda bundle: [])
    images, ids = pictures(2), prompt(weights.config.latents, 2)
    expected = expected_of(model, ids, pixels_of(weights, images))
    assert kl_divergence(expected, lite.load(tmp_path / "int8").score(ids, images)).mean() <= 0.01


@pytest.mark.parametrize("separate", [False, True], ids=["one file", "mm_projector.bin"])
def test_the_original_layout_is_the_same_model(separate: bool, tmp_path: Path) -> None:
    model = reference(SIZES[0])
    weights = read_model(write_original(model, tmp_path / "original", separate))
    ids = prompt(weights.config.latents, 2)
    pixels = pixels_of(weights, pictures(2))
    assert weights.config.preprocessing.fit == "pad"
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4


def test_a_lora_run_is_merged_into_its_base(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    base = write_base(model, tmp_path / "vicuna")
    folder = write_lora(model, tmp_path / "run")
    weights = read_model(folder, base=base)
    ids, pixels = prompt(weights.config.latents, 1), pixels_of(weights, pictures(1))
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "--llama")
    other = write_base(reference(SIZES[1]), tmp_path / "other")
    with pytest.raises(BadInput) as error:
        read_model(folder, base=other)
    check_one_sentence(error, "96")


def test_a_linear_projector_is_one_layer(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    folder = write_original(model, tmp_path / "v1", True)
    config = original_config(model, mm_projector_type="linear")
    (folder / "config.json").write_text(json.dumps(config))
    first = model.model.multi_modal_projector.linear_1
    linear = {f"model.mm_projector.{n}": t for n, t in first.state_dict().items()}
    torch.save(linear, folder / "mm_projector.bin")
    weights = read_model(folder)
    model.model.multi_modal_projector = torch.nn.Sequential(copy.deepcopy(first))
    ids, pixels = prompt(weights.config.latents, 1), pixels_of(weights, pictures(1))
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    folder = write_original(model, tmp_path / "broken", True)
    (folder / "mm_projector.bin").unlink()
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "no projector")
    torch.save(projector_tensors(reference(SIZES[1]), "model."), folder / "mm_projector.bin")
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "mm_projector.bin", 64, 48)
    torch.save(projector_tensors(model, "model."), folder / "mm_projector.bin")
    other = write_tower(reference(SIZES[1]), tmp_path / "tower")
    with pytest.raises(BadInput) as error:
        read_model(folder, tower=str(other))
    check_one_sentence(error, "vision tower")
    for change, named in (
        ({"mm_projector_type": "resampler"}, "resampler"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"image_aspect_ratio": "anyres"}, "anyres"),
        ({"mm_vision_select_layer": -9}, "-9"),
        ({"mm_vision_tower": "no/where/at/all"}, "no/where/at/all"),
    ):
        (folder / "config.json").write_text(json.dumps(original_config(model, **change)))
        with pytest.raises(BadInput) as error:
            read_model(folder)
        check_one_sentence(error, named)
