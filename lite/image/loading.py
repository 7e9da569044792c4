"""From whatever a person gives as an image to checked 8-bit RGB.

Contract: `load_image` returns a `Picture` or raises `BadInput`; no pixel is decoded before the
byte count, the format and the size in the header are known to be acceptable, and nothing is ever
fetched from a network.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from lite.errors import BadInput

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")

# EXIF tag 0x0112 to the operation that undoes it (EXIF 2.32, table 4.6.4 A).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# 16-bit gray to 8 bits, rounded: 257 = 65535 / 255.
_EIGHT_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)

# Decoding one picture at a time bounds the memory, and makes the change of warning filters, which
# are global to the process, safe among our own threads.
_DECODING = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image: `rgb` uint8 `[H, W, 3]` (read-only), sentences to show the person, and the
    name that messages use for it."""

    rgb: np.ndarray
    notes: tuple[str, ...] = ()
    name: str = "the image"


# What a person may give as an image.
ImageSource: TypeAlias = str | Path | bytes | Image.Image | np.ndarray | Picture


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a path, an encoded file's bytes, a Pillow image, or an array uint8 `[H, W, 3]`.

    A `Picture` is returned as it is. Else EXIF orientation is applied, transparency is laid over
    white, 16-bit gray is scaled by its full range, and of an animation or a stack of pages the
    first is taken, with a note. Raises `BadInput` for what cannot be read or is larger than
    `max_pixels` or `MAX_BYTES`.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        name = str(getattr(source, "filename", "") or "the given image")
        with _decoding(name, max_pixels):
            return _decode(source, name, max_pixels)
    if isinstance(source, bytes):
        name, data = "the given image", source
    else:
        name = str(source) or "''"
        data = _read(source, name)
    if len(data) > MAX_BYTES:
        raise BadInput(f"{name} is larger than {MAX_BYTES >> 20} MiB: give a smaller image file.")
    if not data:
        raise BadInput(f"{name} is empty: give an image file with content.")
    with _decoding(name, max_pixels), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return _decode(image, name, max_pixels)


def _read(source: str | Path, name: str) -> bytes:
    """At most one byte more than the cap, so that an endless device cannot fill the memory."""
    if name.lower().startswith(("http://", "https://")):
        raise BadInput(f"{name} is an address: download the image and give the file's path.")
    try:
        with Path(source).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise BadInput(f"There is no file {name}: check the path of the image.") from error
    except IsADirectoryError as error:
        raise BadInput(f"{name} is a folder: give an image file in it.") from error
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise BadInput(f"{name} cannot be read ({why}): check the path and its rights.") from error


@contextmanager
def _decoding(name: str, max_pixels: int) -> Iterator[None]:
    """Hold the decoder, keep Pillow's warnings off the terminal, and word its failures."""
    damaged = f"{name} is cut short or damaged: save or download it again."
    try:
        with _DECODING, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except BadInput:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(name, max_pixels) from error
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS[:-1])
        raise BadInput(
            f"{name} is not an image in a format read here ({kinds} or {FORMATS[-1]}), or its "
            "first bytes are damaged: save it as PNG or JPEG."
        ) from error
    except MemoryError as error:
        raise BadInput(f"{name} needs more memory than is free: make it smaller.") from error
    except Exception as error:  # Pillow's decoders raise anything on foreign bytes
        raise BadInput(damaged) from error


def _too_many_pixels(name: str, limit: int) -> BadInput:
    return BadInput(f"{name} has more than {limit / 1e6:g} megapixels: make it smaller.")


def _check_size(name: str, width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_many_pixels(name, max_pixels)
    if not width * height:
        raise BadInput(f"{name} has no pixels ({width} x {height}): give another image.")


def _from_array(array: np.ndarray, max_pixels: int) -> Picture:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise BadInput(
            f"The given array is {array.dtype} {list(array.shape)}: give uint8 [H, W, 3] in RGB."
        )
    _check_size("the given array", array.shape[1], array.shape[0], max_pixels)
    return _picture(array.copy(), (), "the given array")


def _picture(rgb: np.ndarray, notes: tuple[str, ...], name: str) -> Picture:
    rgb = np.ascontiguousarray(rgb)
    rgb.setflags(write=False)  # the digest stays true
    return Picture(rgb, notes, name)


def _decode(image: Image.Image, name: str, max_pixels: int) -> Picture:
    """Called with the decoder held; until `load`, Pillow has read the header only."""
    _check_size(name, *image.size, max_pixels)
    notes: tuple[str, ...] = ()
    # The second image of an MPO file is the camera's preview or depth, not another picture.
    if image.format != "MPO" and getattr(image, "is_animated", False) and image.tell() == 0:
        notes = (f"{name} holds several frames or pages: only the first is used.",)
    image.load()
    return _picture(np.asarray(_upright(_to_rgb(image, name), image)), notes, name)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        samples = np.asarray(image)  # [H, W] uint16
        gray = _EIGHT_BITS[samples]
        if isinstance(clear := image.info.get("transparency"), int):
            gray[samples == clear] = 255
        # TIFF tag 262 (photometric interpretation) 0 says that 0 is white; Pillow heeds it for 8
        # bits only.
        if getattr(image, "tag_v2", {}).get(262) == 0:
            gray = 255 - gray
        return Image.fromarray(gray).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadInput(
            f"{name} holds 32-bit samples, whose black and white are unknown: save it as 8-bit PNG."
        )
    if not image.has_transparency_data:
        # convert() would copy what is RGB already: 400 MB at the cap.
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    alpha, opaque = rgba.getchannel("A"), rgba.convert("RGB")
    if alpha.getextrema() == (255, 255):
        return opaque
    white = Image.new("RGB", image.size, "white")
    white.paste(opaque, mask=alpha)
    return white


def _upright(rgb: Image.Image, image: Image.Image) -> Image.Image:
    try:
        operation = _UPRIGHT.get(image.getexif().get(0x0112, 1))
    except (
        Exception
    ):  # a damaged EXIF block says nothing about orientation, and the pixels are fine
        return rgb
    return rgb if operation is None else rgb.transpose(operation)
