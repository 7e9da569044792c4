"""What cannot be shown to the model is refused early, in one sentence, without noise."""

import io
import os
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lite.errors import BadInput
from lite.image.preprocessing import MAX_BYTES, load_image
from tests.image_files import NOISE, encoded, png


def refusal(source: Any, **options: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message
    return message


def no_pixels() -> np.ndarray:
    return np.zeros((0, 5, 3), np.uint8)


def closed_file() -> io.BytesIO:
    file = io.BytesIO(b"x")
    file.close()
    return file


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"", "is empty"),
        (lambda: b"hello, this is text", "not an image in a format read here"),
        (lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not an image in a format"),
        (lambda: encoded(Image.new("RGB", (4, 4)), "PPM"), "not an image in a format"),
        (lambda: encoded(Image.fromarray(NOISE), "JPEG")[:700], "cut short or damaged"),
        (lambda: encoded(Image.fromarray(NOISE), "PNG")[:700], "cut short or damaged"),
        (lambda: encoded(Image.new("F", (2, 2)), "TIFF"), "32-bit samples"),
        (lambda: encoded(Image.new("I", (2, 2)), "TIFF"), "32-bit samples"),
        (lambda: Image.new("RGB", (0, 4)), "has no pixels"),
        (no_pixels, "has no pixels"),
        (lambda: np.zeros((4, 4), np.uint8), "give uint8 \\[H, W, 3\\]"),
        (lambda: np.zeros((4, 4, 4), np.uint8), "give uint8 \\[H, W, 3\\]"),
        (lambda: np.zeros((3, 4, 4), np.uint8), "give uint8 \\[H, W, 3\\]"),
        (lambda: np.zeros((4, 4, 3), np.float32), "The given array is float32 \\[4, 4, 3\\]"),
        (lambda: "https://example.org/park.jpg", "is an address"),
        (lambda: "no\0name", "cannot be read"),
        (lambda: 5, "cannot be of the type int: give a path, bytes, an open file"),
        (lambda: {"a": 1}, "cannot be of the type dict"),
        (lambda: io.StringIO("text"), "gives str: open the image in binary mode"),
        (lambda: io.BytesIO(b""), "the given file is empty"),
        (closed_file, "cannot be read .*: give an open file"),
        (lambda: b"\0\0\0\x18ftypisom\0\0\2\0isommp41", "not an image in a format read here"),
        (lambda: "n" * 5000, "cannot be read"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        load_image(make())
    refusal(make())


def test_missing_files_folders_and_locked_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = tmp_path / "park.jpg"
    assert refusal(missing) == f"There is no file {missing}: check the path of the image."
    assert refusal(tmp_path) == f"{tmp_path} is a folder: give an image file in it."
    assert refusal("") == "'' is a folder: give an image file in it."

    def locked(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", locked)
    assert f"{missing} cannot be read (Permission denied)" in refusal(missing)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"])
def test_a_file_cut_anywhere_is_refused_or_whole(kind: str) -> None:
    data = encoded(Image.fromarray(NOISE[:8, :8]), kind)
    whole = load_image(data).rgb
    for end in range(1, len(data)):
        try:
            assert (load_image(data[:end]).rgb == whole).all()
        except BadInput:
            continue


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"]), st.data())
def test_damaged_bytes_never_raise_anything_but_bad_input(kind: str, data: Any) -> None:
    content = bytearray(encoded(Image.fromarray(NOISE[:8, :8]), kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = load_image(bytes(content), max_pixels=10_000)
    except BadInput:
        return
    assert picture.rgb.dtype == np.uint8
    assert picture.rgb.shape[2] == 3


@pytest.mark.parametrize("size", [(20_000, 10_000), (15_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_decompression_bomb_is_refused_from_its_header(
    size: tuple[int, int], recwarn: pytest.WarningsRecorder, capfd: pytest.CaptureFixture[str]
) -> None:
    tracemalloc.start()
    message = refusal(png(*size, 8, 2, b""))
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert message == "the given image has more than 100 megapixels: make it smaller."
    assert not recwarn.list
    assert capfd.readouterr().err == ""


def test_a_large_image_below_the_cap_warns_nobody(recwarn: pytest.WarningsRecorder) -> None:
    # 90 million pixels: Pillow warns from 89.5 million, this package refuses from 100 million.
    assert "cut short" in refusal(png(10_000, 9_000, 1, 0, b""))
    assert not recwarn.list


def test_the_pixel_cap_holds_for_every_kind_of_source() -> None:
    for source in (NOISE, Image.fromarray(NOISE), encoded(Image.fromarray(NOISE))):
        assert "megapixels" in refusal(source, max_pixels=599)
        assert load_image(source, max_pixels=600).rgb.shape == (20, 30, 3)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="needs an endless file")  # noqa: PTH110
def test_a_file_over_the_byte_cap_is_refused_even_if_endless(tmp_path: Path) -> None:
    sparse = tmp_path / "big.png"
    with sparse.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    for source in (sparse, "/dev/zero"):
        assert refusal(source) == f"{source} is larger than 64 MiB: give a smaller image file."


def test_a_format_that_pillow_cannot_read_here_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as where it is not installed
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert refusal(data) == (
        "the given image is HEIF, which Pillow cannot read here: save it as JPEG."
    )


@pytest.mark.parametrize("brand", [b"avif", b"heic"])
def test_damaged_pictures_of_phones_are_refused(brand: bytes) -> None:
    refusal(b"\0\0\0\x18ftyp" + brand + b"\0\0\0\0mif1" + brand + bytes(100))
