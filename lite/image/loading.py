"""From whatever a person gives as an image to checked 8-bit RGB.

Contract: `load_image` returns a `Picture` or raises `BadInput`; no pixel is decoded before the
byte count, the format, the size in the header and the number of a JPEG's scans are known to be
acceptable, and nothing is ever fetched from a network. Any number of threads may load pictures.
"""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image, UnidentifiedImageError

from lite.errors import BadInput
from lite.image.scans import jpeg_scans

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 100_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
# Read where Pillow can, by their brands: AVIF if it was built with libavif, HEIF (HEIC of phones)
# if pillow-heif is installed.
BRANDS = {"AVIF": (b"avif", b"avis"), "HEIF": (b"heic", b"heix", b"hevc", b"heim", b"mif1")}
# Passes that a JPEG may make over its picture: encoders write up to a dozen, and a file of 21 KB
# can ask for 400. At 7 ns for each pixel of a pass the second limit is 8 s.
MAX_SCANS = 64
MAX_SCANNED_PIXELS = 12 * MAX_PIXELS
# Pictures with more pixels are decoded one at a time, which bounds the memory.
LARGE_PIXELS = 16_000_000

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

_DECODING_LARGE = threading.Lock()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded image: `rgb` uint8 `[H, W, 3]` (read-only), sentences to show the person, and the
    name that messages use for it."""

    rgb: np.ndarray
    notes: tuple[str, ...] = ()
    name: str = "the image"


# What a person may give as an image.
ImageSource: TypeAlias = (
    str
    | os.PathLike[str]
    | bytes
    | bytearray
    | memoryview
    | IO[bytes]
    | Image.Image
    | np.ndarray
    | Picture
)


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a path, an encoded file's bytes, an open file, a Pillow image, or an array.

    Arrays are uint8 `[H, W, 3]` in RGB; an open file is read from where it is to its end.

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
            _check_size(name, *source.size, max_pixels)
            _check_scans(name, jpeg_scans(_undecoded(source)), source.width * source.height)
            return _decode(source, name, max_pixels)
    name, data = _read(source)
    if len(data) > MAX_BYTES:
        raise BadInput(f"{name} is larger than {MAX_BYTES >> 20} MiB: give a smaller image file.")
    if not data:
        raise BadInput(f"{name} is empty: give an image file with content.")
    formats, scans = _formats(data, name), jpeg_scans(data)
    with _decoding(name, max_pixels), Image.open(io.BytesIO(data), formats=formats) as image:
        _check_size(name, *image.size, max_pixels)
        _check_scans(name, scans, image.width * image.height)
        return _decode(image, name, max_pixels)


def _read(source: Any) -> tuple[str, bytes]:
    """What to call the image, and its encoded bytes: at most one more than the cap, so that an
    endless device cannot fill the memory."""
    if isinstance(source, bytes | bytearray | memoryview):
        return "the given image", bytes(source)
    if hasattr(source, "read"):
        return _read_file(source)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source) or "''"
        return str(name), _read_path(source, str(name))
    raise BadInput(
        f"An image cannot be of the type {type(source).__name__}: give a path, bytes, an open "
        f"file, a Pillow image or an array."
    )


def _read_file(file: IO[bytes]) -> tuple[str, bytes]:
    given = getattr(file, "name", None)
    name = given if isinstance(given, str) else "the given file"
    try:
        data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: it is closed
        raise BadInput(f"{name} cannot be read ({error}): give an open file.") from error
    if not isinstance(data, bytes):
        raise BadInput(f"{name} gives {type(data).__name__}: open the image in binary mode.")
    return name, data


def _read_path(source: str | os.PathLike[str], name: str) -> bytes:
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


class _NoWarnings:
    """No warnings while any thread is inside.

    Filters are global to the process, so the first thread to enter changes them, and the last one
    to leave puts them back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_NO_WARNINGS = _NoWarnings()


def _formats(data: bytes, name: str) -> tuple[str, ...]:
    """The formats that the first bytes may belong to."""
    # ISO/IEC 14496-12: the size of the first box, its type, and the brands of the file.
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)] if data[4:8] == b"ftyp" else b""
    kind = next((kind for kind, known in BRANDS.items() if any(b in brands for b in known)), "")
    if not kind:
        return FORMATS
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    if kind not in Image.OPEN:
        raise BadInput(f"{name} is {kind}, which Pillow cannot read here: save it as JPEG.")
    return (kind,)


def _undecoded(image: Image.Image) -> bytes:
    """The file of a JPEG that Pillow opened and did not decode yet."""
    file = getattr(image, "fp", None)
    if image.format not in ("JPEG", "MPO") or file is None:
        return b""
    at = file.tell()
    file.seek(0)
    data: bytes = file.read(MAX_BYTES)
    file.seek(at)
    return data


def _check_scans(name: str, scans: int, pixels: int) -> None:
    most = min(MAX_SCANS, MAX_SCANNED_PIXELS // pixels)
    if scans > most:
        raise BadInput(
            f"{name} is a JPEG of {scans} scans, but of this size {most} are read: save it again."
        )


@contextmanager
def _decoding(name: str, max_pixels: int) -> Iterator[None]:
    """Keep Pillow's warnings off the terminal, and word its failures."""
    damaged = f"{name} is cut short or damaged: save or download it again."
    try:
        with _NO_WARNINGS:
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
    """Until `load`, Pillow has read the header only."""
    notes: tuple[str, ...] = ()
    # The second image of an MPO file is the camera's preview or depth, not another picture.
    if image.format != "MPO" and getattr(image, "is_animated", False) and image.tell() == 0:
        notes = (f"{name} holds several frames or pages: only the first is used.",)
    with _DECODING_LARGE if image.width * image.height > LARGE_PIXELS else nullcontext():
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
