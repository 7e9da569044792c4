"""The features of an image are computed once, and found again by content alone."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import lite
from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput
from lite.image.preprocessing import load_image
from tests.lite.conftest import BIRD, CAT, DOG

SHAPE = (2, 3)
VALUES = np.arange(6, dtype=np.float32).reshape(SHAPE)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "visual"


class Counted:
    """A model's vision encoder, and how often its graph ran."""

    def __init__(self, bundle: Path) -> None:
        self.vision = lite.load(bundle).vision
        self.runs = 0

    def __call__(self, source: Any) -> np.ndarray:
        return self.vision.encode(load_image(source), self._ran).array

    def key(self, source: Any) -> str:
        return self.vision.encode(load_image(source)).key

    def _ran(self) -> None:
        self.runs += 1


def altered_copy(bundle: Path, target: Path, **claims: Any) -> Path:
    shutil.copytree(bundle, target)
    manifest = json.loads((target / MANIFEST).read_text())
    (target / MANIFEST).write_text(json.dumps(manifest | claims))
    return target


def test_equal_pixels_are_computed_once_whatever_their_path_and_encoding(
    bundles: Any, tmp_path: Path
) -> None:
    look = Counted(bundles())
    sources: list[Any] = [DOG, Image.fromarray(DOG)]
    for name in ("one.png", "two.png", "three.bmp"):
        Image.fromarray(DOG).save(tmp_path / name)
        sources.append(tmp_path / name)
    encoded = io.BytesIO()
    Image.fromarray(DOG).save(encoded, "WEBP", lossless=True)
    arrays = [look(source) for source in [*sources, encoded.getvalue()]]
    assert look.runs == 1
    assert all((array == arrays[0]).all() for array in arrays)


def test_an_overwritten_file_is_another_image(bundles: Any, tmp_path: Path) -> None:
    look, file = Counted(bundles()), tmp_path / "photo.png"
    Image.fromarray(DOG).save(file)
    dog = look(file)
    Image.fromarray(CAT).save(file)
    assert (look(file) != dog).any()
    assert look.runs == 2


def test_another_process_finds_it_on_disk_bit_for_bit(bundles: Any) -> None:
    first, second = Counted(bundles()), Counted(bundles())
    assert (first(DOG) == second(DOG)).all()
    assert (first.runs, second.runs) == (1, 0)
    assert second.vision._session is None  # not even opened


def test_a_damaged_file_is_computed_again_and_mended(bundles: Any, empty_cache: Path) -> None:
    right = Counted(bundles())(DOG)
    (file,) = empty_cache.iterdir()
    whole = file.read_bytes()
    flipped = bytearray(whole)
    flipped[-1] ^= 1
    for damaged in (b"", whole[:-4], whole[:20], bytes(flipped), whole + b"more"):
        file.write_bytes(damaged)
        look = Counted(bundles())
        assert (look(DOG) == right).all()
        assert look.runs == 1
        assert file.read_bytes() == whole


def test_the_key_depends_on_the_preprocessing_and_the_vision_graph(
    bundles: Any, small_bundle: Path, tmp_path: Path
) -> None:
    how = lite.load(bundles()).bundle.manifest.preprocessing.to_json()
    other = altered_copy(bundles(), tmp_path / "b", preprocessing=how | {"mean": [0.5, 0.5, 0.5]})
    keys = [Counted(folder).key(DOG) for folder in (bundles(), other, small_bundle)]
    assert len(set(keys)) == 3
    assert Counted(bundles("preceding")).key(DOG) == keys[0]  # the rule is the decoder's affair


def test_a_manifest_with_another_image_size_than_its_graph_is_refused(
    bundles: Any, tmp_path: Path
) -> None:
    how = lite.load(bundles()).bundle.manifest.preprocessing.to_json()
    wrong = altered_copy(bundles(), tmp_path / "b", preprocessing=how | {"size": 64})
    with pytest.raises(BadInput, match="does not describe its vision graph"):
        Counted(wrong)(DOG)


def blocked_by_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.mkdir(parents=True)
    folder.write_text("a file where the folder should be")


def nobody_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MMGPT_LITE_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises KeyError, as for unknown users


@pytest.mark.parametrize("spoil", [blocked_by_a_file, nobody_home])
def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(
    spoil: Callable[..., None], bundles: Any, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(empty_cache, monkeypatch)
    look = Counted(bundles())
    assert np.isfinite(look(DOG)).all()
    look(DOG)
    assert look.runs == 1  # the memory still remembers


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_only_its_owner_can_see_what_a_person_looked_at(bundles: Any, empty_cache: Path) -> None:
    Counted(bundles())(BIRD)
    assert empty_cache.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in empty_cache.iterdir()] == [0o600]
