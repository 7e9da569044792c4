"""Pixels equal those of the processor that a folder names, on sizes that are not round."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from transformers import (
    CLIPImageProcessorPil,
    IdeficsImageProcessorPil,
    LlavaImageProcessorPil,
    MllamaImageProcessorPil,
)

from export.processors import reference_of, tiles_of
from lite.errors import BadInput
from lite.image.preprocessing import (
    CROP,
    DOWN,
    EVEN,
    PAD,
    SQUASH,
    TILES,
    Preprocessing,
    load_image,
    to_pixels,
)
from qlora.families.parts import preprocessing
from tests.refusals import check_one_sentence

ODD = ((640, 427), (427, 640), (1000, 667), (667, 1000), (337, 336), (73, 500), (499, 501))


def picture(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def worst(folder: Path, p: Preprocessing, size: tuple[int, int]) -> float:
    _, reference = reference_of(folder, p)
    ours = tiles_of(to_pixels(load_image(picture(*size)), p), p)
    return float(np.abs(ours - reference(picture(*size))).max())


@pytest.mark.parametrize("size", ODD)
@pytest.mark.parametrize(
    ("processor", "fit"),
    [
        (CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=56), CROP),
        (CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size=56), PAD),
        (LlavaImageProcessorPil(size={"shortest_edge": 56}, crop_size=56, do_pad=True), PAD),
        (IdeficsImageProcessorPil(image_size=56), SQUASH),
    ],
    ids=["llava", "llava's padding", "transformers' padding", "idefics"],
)
def test_pixels_equal_the_folders_processor(
    tmp_path: Path, processor: Any, fit: str, size: tuple[int, int]
) -> None:
    processor.save_pretrained(tmp_path)
    p = preprocessing(tmp_path, 56, fit)
    named, _ = reference_of(tmp_path, p)
    assert named == type(processor).__name__.removesuffix("Pil")
    assert worst(tmp_path, p, size) <= 1e-3


@pytest.mark.parametrize("size", ODD[:3])
def test_tiles_equal_the_folders_processor(tmp_path: Path, size: tuple[int, int]) -> None:
    side = {"height": 28, "width": 28}
    processor = MllamaImageProcessorPil(size=side, max_image_tiles=4)
    processor.save_pretrained(tmp_path)
    mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    assert worst(tmp_path, Preprocessing(28, mean, std, TILES, 4), size) <= 1e-3


def test_the_proof_tells_one_rounding_from_the_other(tmp_path: Path) -> None:
    """As it could not while both sides were open_clip's."""
    CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size=336).save_pretrained(tmp_path)
    p = preprocessing(tmp_path, 336, CROP)
    assert p.rounding == DOWN
    assert worst(tmp_path, p, (640, 427)) <= 1e-3
    assert worst(tmp_path, replace(p, rounding=EVEN), (640, 427)) > 0.1


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"do_rescale": False}, "do_rescale"),
        ({"do_normalize": False}, "do_normalize"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"crop_size": 48}, "crop_size"),
        ({"size": {"shortest_edge": 64}}, "size"),
        ({"resample": 2}, "resample"),
    ],
)
def test_what_a_processor_does_otherwise_is_refused(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    settings = {"size": {"shortest_edge": 56}, "crop_size": 56} | change
    CLIPImageProcessorPil(**settings).save_pretrained(tmp_path)
    with pytest.raises(BadInput) as error:
        preprocessing(tmp_path, 56, CROP)
    check_one_sentence(error, named)
