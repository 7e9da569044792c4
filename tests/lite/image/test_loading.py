"""Every kind of image file that people have becomes its right RGB."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from lite.image.preprocessing import Picture, load_image
from tests.image_files import NOISE, chunk, encoded, png


def colors(source: Any) -> list[list[int]]:
    return load_image(source).rgb.reshape(-1, 3).tolist()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_files_give_exactly_their_pixels(kind: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(NOISE), kind, **({"lossless": True} if kind == "WEBP" else {}))
    file = tmp_path / "image"
    file.write_bytes(data)
    for source in (data, file, str(file), Image.open(file)):
        picture = load_image(source)
        assert (picture.rgb == NOISE).all()
        assert picture.notes == ()
    assert load_image(file).name == str(file)


def test_jpeg_decodes_as_pillow_does() -> None:
    data = encoded(Image.fromarray(NOISE), "JPEG")
    assert (load_image(data).rgb == np.asarray(Image.open(io.BytesIO(data)))).all()


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_read() -> None:
    data = encoded(Image.new("RGB", (32, 24), (200, 30, 60)), "AVIF", quality=100)
    rgb = load_image(data).rgb
    assert rgb.shape == (24, 32, 3)
    assert np.abs(rgb.astype(int) - (200, 30, 60)).max() <= 4


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(NOISE), kind, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert (load_image(data).rgb == np.asarray(upright.convert("RGB"))).all()


def test_damaged_exif_does_not_refuse_good_pixels(recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(Image.fromarray(NOISE), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert (load_image(data).rgb == NOISE).all()
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_used_and_said(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "party"
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    lossless = {"lossless": True} if kind == "WEBP" else {}
    file.write_bytes(encoded(first, kind, save_all=True, append_images=[second], **lossless))
    picture = load_image(file)
    assert (picture.rgb == (255, 0, 0)).all()
    assert picture.notes == (f"{file} holds several frames or pages: only the first is used.",)


def test_a_phones_preview_beside_the_photo_is_not_worth_a_note() -> None:
    frame = Image.new("RGB", (8, 8), "white")
    assert load_image(encoded(frame, "MPO", save_all=True, append_images=[frame])).notes == ()


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_has_the_right_colors(kind: str) -> None:
    inks = {(0, 255, 255, 0): (255, 0, 0), (255, 0, 0, 0): (0, 255, 255), (0, 0, 0, 255): (0, 0, 0)}
    for cmyk, rgb in inks.items():
        data = encoded(Image.new("CMYK", (8, 8), cmyk), kind)
        assert (b"Adobe" in data) == (kind == "JPEG")  # the marker under which inks are inverted
        np.testing.assert_allclose(colors(data), [rgb] * 64, atol=2)


def test_palettes_become_their_colors() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putdata([0, 1])
    assert colors(encoded(image)) == [[10, 20, 30], [40, 50, 60]]
    assert colors(encoded(image, transparency=0)) == [[255, 255, 255], [40, 50, 60]]
    assert colors(encoded(image, "GIF", transparency=1)) == [[10, 20, 30], [255, 255, 255]]
    half = encoded(image, transparency=bytes([255, 128]))
    assert colors(half) == [[10, 20, 30], [147, 152, 157]]


@pytest.mark.parametrize(
    ("mode", "value", "rgb"),
    [
        ("1", 1, (255, 255, 255)),
        ("1", 0, (0, 0, 0)),
        ("L", 77, (77, 77, 77)),
        ("LA", (77, 255), (77, 77, 77)),
        ("LA", (77, 0), (255, 255, 255)),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3)),
        ("RGBA", (1, 2, 3, 0), (255, 255, 255)),
        ("RGBA", (0, 100, 200, 51), (204, 224, 244)),
    ],
)
def test_every_mode_becomes_rgb_over_white(
    mode: str, value: Any, rgb: tuple[int, int, int]
) -> None:
    image = Image.new(mode, (3, 2), value)
    assert colors(image) == colors(encoded(image)) == [list(rgb)] * 6


def test_a_fully_opaque_image_keeps_every_bit() -> None:
    opaque = Image.fromarray(np.dstack([NOISE, np.full((20, 30), 255, np.uint8)]), "RGBA")
    assert (load_image(opaque).rgb == NOISE).all()


def test_a_color_named_transparent_is_white() -> None:
    clear = chunk(b"tRNS", struct.pack(">3H", 255, 0, 0))
    assert colors(png(2, 1, 8, 2, bytes([255, 0, 0, 1, 2, 3]), clear)) == [[255] * 3, [1, 2, 3]]


def test_sixteen_bits_are_scaled_by_their_range_and_not_clipped() -> None:
    levels, eight = [0, 128, 129, 32768, 65535], [0, 0, 1, 128, 255]
    gray = np.array([levels], dtype=np.uint16)
    wanted = [[value] * 3 for value in eight]
    for kind in ("PNG", "TIFF"):
        assert colors(encoded(Image.fromarray(gray), kind)) == wanted
    assert colors(Image.frombytes("I;16B", (5, 1), gray.astype(">u2").tobytes())) == wanted
    clear = chunk(b"tRNS", struct.pack(">H", 0))
    assert colors(png(2, 1, 16, 0, struct.pack(">2H", 0, 65535), clear)) == [[255] * 3] * 2


def test_sixteen_bit_tiff_where_zero_is_white_is_inverted() -> None:
    data = encoded(Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), "TIFF")
    black_is_zero = struct.pack("<HHIHH", 262, 3, 1, 1, 0)
    assert data.count(black_is_zero) == 1
    white_is_zero = data.replace(black_is_zero, struct.pack("<HHIHH", 262, 3, 1, 0, 0))
    assert colors(white_is_zero) == [[255] * 3, [0] * 3]


@pytest.mark.parametrize(
    ("color", "row", "rgb"),
    [
        (2, struct.pack(">3H", 65535, 0, 32768), [255, 0, 128]),
        (4, struct.pack(">2H", 32768, 65535), [128, 128, 128]),
        (6, struct.pack(">4H", 65535, 0, 32768, 65535), [255, 0, 128]),
        (6, struct.pack(">4H", 65535, 0, 32768, 0), [255, 255, 255]),
    ],
)
def test_sixteen_bit_png_keeps_its_upper_bits(color: int, row: bytes, rgb: list[int]) -> None:
    assert colors(png(1, 1, 16, color, row)) == [rgb]


def test_a_picture_is_named_for_the_messages() -> None:
    assert isinstance(load_image(NOISE), Picture)
    assert load_image(NOISE).name == "the given array"
    assert load_image(encoded(Image.fromarray(NOISE))).name == "the given image"


def test_bytes_of_any_kind_and_open_files_are_read(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG")
    (tmp_path / "noise.png").write_bytes(data)
    for source in (bytearray(data), memoryview(data), memoryview(data + data)[: len(data)]):
        np.testing.assert_array_equal(load_image(source).rgb, NOISE)
    with (tmp_path / "noise.png").open("rb") as file:
        picture = load_image(file)
    np.testing.assert_array_equal(picture.rgb, NOISE)
    assert picture.name == str(tmp_path / "noise.png")
    assert load_image(io.BytesIO(data)).name == "the given file"


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_read_upright() -> None:
    colours = np.zeros((20, 30, 3), np.uint8)
    colours[:, :15, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter to the right
    data = encoded(Image.fromarray(colours), "AVIF", quality=100, exif=exif)
    rgb = load_image(data).rgb
    assert rgb.shape == (30, 20, 3)
    assert rgb[:14, :, 0].min() > 200
    assert rgb[16:, :, 0].max() < 60


def test_heic_is_read_where_pillow_can() -> None:
    """Without pillow-heif the sentence says what to do; with it the picture is read."""
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(buffer)
    rgb = load_image(buffer.getvalue()).rgb
    assert rgb.shape == (48, 64, 3)
    assert rgb[..., 0].min() > 200


def test_threads_load_pictures_at_the_same_time(recwarn: pytest.WarningsRecorder) -> None:
    data = encoded(Image.fromarray(NOISE), "PNG")
    before = [*warnings.filters]
    with ThreadPoolExecutor(8) as threads:
        for picture in threads.map(load_image, [data] * 64):
            np.testing.assert_array_equal(picture.rgb, NOISE)
    assert warnings.filters == before
    assert not recwarn.list
