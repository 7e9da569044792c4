"""From a picture to the pixels of the vision encoder, and to its name in a cache.

Contract: `to_pixels` repeats the transforms that encoders were trained with (open_clip's, and those
that keep the whole picture) without torch, so one copy serves training and chat; `digest` names a
picture by its content. Pictures come from `load_image`.
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image

from lite.errors import BadInput
from lite.image.loading import MAX_BYTES, MAX_PIXELS, Picture, load_image
from lite.image.tiles import MOST_TILES, fitted, layout

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "MAX_BYTES",
    "MAX_PIXELS",
    "Picture",
    "Preprocessing",
    "digest",
    "load_image",
    "to_pixels",
]

MAX_SIDE = 2048

# The normalisation of the OpenAI CLIP weights: open_clip.constants.OPENAI_DATASET_MEAN and _STD.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# Above this many pixels the resize of the whole picture is replaced by one of the
# part that survives the crop: 2048 x 2048 at an aspect of 8, or 224 x 224 at an aspect of 668.
_MAX_RESIZED = 2**25
# The same for the square that a picture is padded to: 11585 x 11585.
_MAX_PADDED = 2**27

CROP, SQUASH, PAD, TILES = "crop", "squash", "pad", "tiles"
FITS = (CROP, SQUASH, PAD, TILES)
# Where the middle of a picture begins at half a pixel: torchvision's `center_crop`, which is
# open_clip's, rounds half to even; that of transformers' processors rounds down.
EVEN, DOWN = "even", "down"
# Entries that bundles from before them lack.
_LATER = {"fit": CROP, "tiles": 1, "rounding": EVEN}
# Entries that stay out of a manifest where they are these, as in bundles from before them.
_UNSAID = (("tiles", 1), ("rounding", EVEN))


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes pixels. Raises `BadInput` on values no encoder has.

    Attributes:
        size: side of the square in pixels.
        mean, std: per RGB channel, of values in 0..1.
        fit: how a picture becomes a square: `crop` keeps its middle, `squash` all of it without
            its proportions, `pad` all of it on a square of the mean colour, `tiles` all of it on
            several squares side by side (`lite.image.tiles`).
        tiles: squares at most.
        rounding: of a crop that begins at half a pixel, `even` or `down`.
    """

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    fit: str = CROP
    tiles: int = 1
    rounding: str = EVEN

    @property
    def side(self) -> int:
        """Of the square that holds the pixels, whatever the tiles' layout."""
        return self.size * self.tiles

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIDE:
            raise _bad_preprocessing("size", f"a whole number from 1 to {MAX_SIDE}", self.size)
        if self.fit not in FITS:
            raise _bad_preprocessing("fit", f"one of {', '.join(FITS)}", self.fit)
        if self.rounding not in (EVEN, DOWN):
            raise _bad_preprocessing("rounding", f"{EVEN} or {DOWN}", self.rounding)
        most = MOST_TILES if self.fit == TILES else 1
        if type(self.tiles) is not int or not 1 <= self.tiles <= most:
            raise _bad_preprocessing("tiles", f"a whole number from 1 to {most}", self.tiles)
        # A standard deviation below 1e-6 or anything beyond 1e6 would overflow float32 products;
        # NaN fails both comparisons.
        for name, low in (("mean", -1e6), ("std", 1e-6)):
            values = getattr(self, name)
            if not (
                isinstance(values, tuple)
                and len(values) == 3
                and all(type(v) in (int, float) and low <= v <= 1e6 for v in values)
            ):
                raise _bad_preprocessing(name, f"three numbers from {low:g} to 1e+06", values)

    def to_json(self) -> dict[str, Any]:
        """The dictionary that the bundle's manifest keeps; `from_json` reads it back equal."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
            if (key, value) not in _UNSAID
        }

    @classmethod
    def from_json(cls, data: object) -> "Preprocessing":
        """Read what `to_json` wrote. Raises `BadInput` on missing, unknown or absurd entries: an
        entry that this version does not know would silently change every pixel. Older bundles,
        which all crop, do not name the fit."""
        wanted = {"size", "mean", "std", *_LATER}
        if not isinstance(data, dict) or {*data, *_LATER} != wanted:
            raise _bad_preprocessing("object", "size, mean, std and fit and nothing else", data)
        mean, std = (tuple(v) if isinstance(v := data[key], list) else v for key in ("mean", "std"))
        later = {key: data.get(key, default) for key, default in _LATER.items()}
        return cls(data["size"], mean, std, **later)


def to_pixels(picture: Picture, preprocessing: Preprocessing) -> np.ndarray:
    """CLIP-normalised pixels, float32 `[3, side, side]`.

    A crop equals `open_clip.image_transform(size, is_train=False, mean=..., std=...)` on RGB:
    Pillow's antialiased bicubic resize of the shortest side, torchvision's rounding of the long
    side and of the crop (or transformers', see `Preprocessing.rounding`), division by 255,
    normalisation in float32. Only where the resized picture would hold more than 2**25 pixels are
    values computed for the crop alone, within 1/255 of it.

    Of tiles, those that the picture's layout has are at the top left, and the rest is NaN.
    """
    canvas = _CANVASES[preprocessing.fit](picture, preprocessing)
    pixels = np.asarray(canvas, dtype=np.float32) / np.float32(255)  # [rows, columns, 3]
    mean, std = (np.array(v, np.float32) for v in (preprocessing.mean, preprocessing.std))
    pixels = ((pixels - mean) / std).transpose(2, 0, 1)
    below, beside = (preprocessing.side - length for length in pixels.shape[1:])
    if below or beside:
        pixels = np.pad(pixels, ((0, 0), (0, below), (0, beside)), constant_values=np.nan)
    return np.ascontiguousarray(pixels)


def _cropped(picture: Picture, preprocessing: Preprocessing) -> Image.Image:
    size = preprocessing.size
    height, width, _ = picture.rgb.shape
    short = min(height, width)
    # torchvision.transforms.functional._compute_resized_output_size truncates the long side.
    tall, wide = int(size * height / short), int(size * width / short)
    top, left = (_middle(side - size, preprocessing.rounding) for side in (tall, wide))
    if tall * wide <= _MAX_RESIZED:
        whole = Image.fromarray(picture.rgb).resize((wide, tall), Image.Resampling.BICUBIC)
        return whole.crop((left, top, left + size, top + size))
    return _resize_part(picture.rgb, tall, wide, top, left, size)


def _middle(spare: int, rounding: str) -> int:
    """Where the middle begins if so many pixels are left over."""
    return round(spare / 2) if rounding == EVEN else spare // 2


def _squashed(picture: Picture, preprocessing: Preprocessing) -> Image.Image:
    sides = (preprocessing.size, preprocessing.size)
    return Image.fromarray(picture.rgb).resize(sides, Image.Resampling.BICUBIC)


def _padded(picture: Picture, preprocessing: Preprocessing) -> Image.Image:
    """As LLaVA's `expand2square` and a resize do it.

    Where the padded picture would be too large to make, only the picture itself is resized, which
    differs from it where the two meet.
    """
    height, width, _ = picture.rgb.shape
    size, side = preprocessing.size, max(height, width)
    image = Image.fromarray(picture.rgb)
    if side * side > _MAX_PADDED:
        scale = size / side
        width, height = (max(1, round(x * scale)) for x in (width, height))
        image, side = image.resize((width, height), Image.Resampling.BICUBIC), size
    colour = tuple(int(255 * value) for value in preprocessing.mean)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square if side == size else square.resize((size, size), Image.Resampling.BICUBIC)


def _tiled(picture: Picture, preprocessing: Preprocessing) -> Image.Image:
    """As transformers' `MllamaImageProcessor`: bilinear, and black where the picture ends."""
    size = preprocessing.size
    height, width, _ = picture.rgb.shape
    rows, columns = layout(height, width, size, preprocessing.tiles)
    tall, wide = fitted(height, width, size, rows, columns)
    canvas = Image.new("RGB", (columns * size, rows * size))
    resized = Image.fromarray(picture.rgb).resize((wide, tall), Image.Resampling.BILINEAR)
    canvas.paste(resized, (0, 0))
    return canvas


_CANVASES = {CROP: _cropped, SQUASH: _squashed, PAD: _padded, TILES: _tiled}


def digest(picture: Picture) -> str:
    """SHA-256, in hexadecimal, of the shape and the decoded pixels: equal for equal content,
    whatever the path or the encoding."""
    height, width, _ = picture.rgb.shape
    sha = hashlib.sha256(f"RGB uint8 {height}x{width}\n".encode())
    sha.update(np.ascontiguousarray(picture.rgb).data)
    return sha.hexdigest()


def _bad_preprocessing(name: str, wanted: str, value: object) -> BadInput:
    return BadInput(
        f"The preprocessing's {name} must be {wanted}, not {repr(value)[:80]}: "
        "correct the manifest or export the bundle again."
    )


def _resize_part(
    rgb: np.ndarray, tall: int, wide: int, top: int, left: int, size: int
) -> Image.Image:
    """The crop of a resize to `tall` x `wide`, without making the whole.

    Pillow's `box` is float32, so the source is cut down to what the bicubic filter (support 2, in
    units of the larger pixel) can reach before fractions of a pixel are asked for.
    """
    box, cut = [0.0] * 4, [slice(0)] * 2
    for axis, (long, start) in enumerate(((tall, top), (wide, left))):
        scale = rgb.shape[axis] / long
        first, last = start * scale, (start + size) * scale
        reach = 2 * max(scale, 1.0) + 1
        cut[axis] = slice(max(int(first - reach), 0), int(last + reach) + 1)
        box[1 - axis], box[3 - axis] = first - cut[axis].start, last - cut[axis].start
    part = Image.fromarray(np.ascontiguousarray(rgb[cut[0], cut[1]]))
    # Rounding in float32 must not carry the box over the edge of the part.
    limits = (part.width, part.height) * 2
    left_, top_, right, bottom = (min(max(b, 0.0), m) for b, m in zip(box, limits, strict=True))
    return part.resize((size, size), Image.Resampling.BICUBIC, (left_, top_, right, bottom))
