"""A picture becomes the pixels that CLIP was trained on, and its name in a cache is its content."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lite.errors import BadInput
from lite.image import preprocessing
from lite.image.preprocessing import Preprocessing, digest, load_image, to_pixels
from tests.image_files import NOISE

FIXTURE = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny"


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from([1, 7, 56, 64, 97, 224]), st.data()
)
def test_pixels_equal_open_clips_validation_transform(
    height: int, width: int, size: int, data: Any
) -> None:
    open_clip = pytest.importorskip("open_clip")
    how = data.draw(
        st.sampled_from([Preprocessing(size), Preprocessing(size, (0.5, 0.4, 0.3), (0.1, 0.2, 1))])
    )
    seed = data.draw(st.integers(0, 2**32 - 1))
    rgb = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    transform = open_clip.image_transform(size, is_train=False, mean=how.mean, std=how.std)
    ours = to_pixels(load_image(rgb), how)
    assert ours.dtype == np.float32
    assert ours.shape == (3, size, size)
    np.testing.assert_allclose(ours, transform(Image.fromarray(rgb)).numpy(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", [0, 1, 3])
def test_pixels_equal_those_of_the_reference(case: int) -> None:
    prompts = json.loads((FIXTURE / "cases.json").read_text())["prompts"]
    files = [FIXTURE / "images" / f"{index}.png" for index in prompts[case]["images"]]
    ours = np.stack([to_pixels(load_image(file), Preprocessing(56)) for file in files])
    with np.load(FIXTURE / "expected.npz") as expected:
        assert np.abs(ours - expected[f"pixels_{case}"]).max() <= 1e-3


@pytest.mark.parametrize("shape", [(40, 400), (400, 40), (1, 900), (900, 1), (33, 701), (701, 33)])
@pytest.mark.parametrize("size", [16, 57, 224])
def test_resizing_only_the_crop_gives_the_pixels_of_resizing_it_all(
    shape: tuple[int, int], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    plain = Preprocessing(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    whole = to_pixels(load_image(rgb), plain)
    monkeypatch.setattr(preprocessing, "_MAX_RESIZED", 0)
    assert np.abs(to_pixels(load_image(rgb), plain) - whole).max() <= 1.001 / 255


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (3, 5_000_000)])
def test_a_hair_thin_image_needs_no_gigantic_intermediate(shape: tuple[int, int]) -> None:
    rgb = np.zeros((*shape, 3), dtype=np.uint8)
    rgb[..., 0] = 255
    picture = load_image(rgb)
    tracemalloc.start()
    pixels = to_pixels(picture, Preprocessing(224, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
    assert pixels.shape == (3, 224, 224)
    assert (pixels == np.array([1, 0, 0], np.float32)[:, None, None]).all()


def test_preprocessing_survives_the_manifest() -> None:
    how = Preprocessing(336, (0.5, 0.25, 0.1), (0.5, 1, 0.3))
    assert Preprocessing.from_json(json.loads(json.dumps(how.to_json()))) == how


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"size": -224},
        {"size": 10**9},
        {"size": 224.0},
        {"size": True},
        {"size": "224"},
        {"mean": [0.5, 0.5]},
        {"mean": 0.5},
        {"mean": [0.5, 0.5, float("nan")]},
        {"mean": [0.5, 0.5, None]},
        {"mean": [0.5, 0.5, float("inf")]},
        {"std": [0.5, 0.0, 0.5]},
        {"std": [0.5, -1, 0.5]},
        {"std": [0.5, 0.5, 0.5, 0.5]},
        {"std": [0.5, 0.5, 10**400]},
        {"interpolation": "bilinear"},
    ],
)
def test_nonsense_preprocessing_is_refused_in_one_sentence(change: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"preprocessing's .* must be") as caught:
        Preprocessing.from_json(Preprocessing(224).to_json() | change)
    assert "\n" not in str(caught.value)


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["size", "mean", "std"]), inner)
        ),
    )
)
def test_any_json_is_a_preprocessing_or_one_sentence(data: object) -> None:
    try:
        how = Preprocessing.from_json(data)
    except BadInput:
        return
    assert np.isfinite(to_pixels(load_image(NOISE), how)).all()


def test_the_digest_is_of_the_content_and_not_of_the_path(tmp_path: Path) -> None:
    for name in ("a.png", "b.bmp"):
        Image.fromarray(NOISE).save(tmp_path / name)
    first, second = (load_image(tmp_path / name) for name in ("a.png", "b.bmp"))
    assert len(digest(first)) == 64
    assert digest(first) == digest(second) == digest(load_image(NOISE))


def test_the_digest_sees_every_pixel_and_the_shape() -> None:
    changed = NOISE.copy()
    changed[-1, -1, -1] ^= 1
    pictures = [NOISE, changed, NOISE.reshape(30, 20, 3), NOISE[:, ::-1]]
    assert len({digest(load_image(rgb)) for rgb in pictures}) == 4


def test_a_picture_cannot_change_behind_its_digest() -> None:
    rgb = NOISE.copy()
    picture = load_image(rgb)
    rgb[:] = 0
    assert (picture.rgb == NOISE).all()
    with pytest.raises(ValueError, match="read-only"):
        picture.rgb[0, 0, 0] = 1
