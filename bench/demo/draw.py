"""From a scene to pixels.

Contract: `draw(scene, side)` is a function of its arguments and the installed fonts. Everything of
a thing stays inside its box.
"""

from __future__ import annotations

import math
from functools import lru_cache

from PIL import Image, ImageDraw

from bench.demo import fonts
from bench.demo.backgrounds import background_of, draw_background
from bench.demo.kinds import PAINTS
from bench.demo.world import WORD, Scene, Thing

# Shapes and words are drawn so many times larger, for smooth edges.
OVERSAMPLING = 4
# Words in these have a dark edge.
LIGHT = ("yellow", "white")


def draw(scene: Scene, side: int = 112) -> Image.Image:
    """The scene as an RGB picture of side x side pixels. Raises `BadInput` without the fonts."""
    picture = draw_background(background_of(scene.background), side, scene.seed)
    for thing in scene.things:
        drawn, at = placed(thing, side)
        picture.paste(drawn, at, drawn)
    return picture


# A picture and its truth ask for the same things one after the other.
@lru_cache(maxsize=16)
def placed(thing: Thing, side: int) -> tuple[Image.Image, tuple[int, int]]:
    """A thing as it is drawn, as an RGBA picture, and where its left upper corner goes."""
    left, top, right, bottom = (value * side for value in thing.box)
    wide, high = max(4, int(right - left)), max(4, int(bottom - top))
    if thing.look.glyph:
        drawn = _fit(_glyph(thing.look.glyph, thing.rotation), wide, high)
    elif thing.kind == WORD:
        drawn = _fit(_word(thing), wide, high)
    else:
        drawn = _fit(_shape(thing.kind, thing.colour, thing.rotation), wide, high)
    return drawn, (
        round((left + right - drawn.width) / 2),
        round((top + bottom - drawn.height) / 2),
    )


def _fit(drawn: Image.Image, wide: int, high: int) -> Image.Image:
    """As large as fits into the box, in its own proportions."""
    scale = min(wide / drawn.width, high / drawn.height)
    size = max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale))
    # Premultiplied, so that what is transparent does not bleed into the edges.
    small = drawn.convert("RGBa").resize(size, Image.Resampling.BILINEAR, reducing_gap=2)
    return small.convert("RGBA")


# Room for every emoji at every rotation: turning one takes longer than all else in a picture.
@lru_cache(maxsize=8192)
def _glyph(glyph: str, rotation: float) -> Image.Image:
    """An emoji, cropped to what is drawn of it."""
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((10, 10), glyph, font=fonts.emoji(), embedded_color=True)
    return _turned(canvas.crop(canvas.getbbox()), rotation)


def _turned(drawn: Image.Image, rotation: float) -> Image.Image:
    if not rotation:
        return drawn
    turned = drawn.convert("RGBa").rotate(rotation, Image.Resampling.BICUBIC, expand=True)
    turned = turned.convert("RGBA")
    return turned.crop(turned.getbbox())


@lru_cache(maxsize=2048)
def _shape(name: str, colour: str, rotation: float) -> Image.Image:
    side = 48 * OVERSAMPLING
    canvas = Image.new("RGBA", (side, side))
    pen, last, paint = ImageDraw.Draw(canvas), side - 1, PAINTS[colour]
    if name == "circle":
        pen.ellipse((0, 0, last, last), paint)
    elif name == "square":
        pen.rectangle((0, 0, last, last), paint)
    else:
        pen.polygon([(x * last, y * last) for x, y in _outline(name)], paint)
    return _turned(canvas.crop(canvas.getbbox()), rotation)


def _outline(name: str) -> list[tuple[float, float]]:
    """Corners in the unit square."""
    if name == "triangle":
        return [(0.5, 0.06), (1, 0.94), (0, 0.94)]
    if name == "diamond":
        return [(0.5, 0), (0.84, 0.5), (0.5, 1), (0.16, 0.5)]
    if name == "cross":
        a, b = 0.33, 0.67
        half = [(a, 0), (b, 0), (b, a), (1, a), (1, b), (b, b)]
        return half + [(1 - x, 1 - y) for x, y in half]
    points = []
    for corner in range(10):
        angle, radius = math.pi * corner / 5, 0.5 if corner % 2 == 0 else 0.215
        points.append((0.5 + radius * math.sin(angle), 0.52 - radius * math.cos(angle)))
    return points


def _word(thing: Thing) -> Image.Image:
    """Letters with a thin edge that keeps them readable on any background."""
    font = fonts.letters(thing.font, 14 * OVERSAMPLING)
    stroke = OVERSAMPLING * 3 // 4
    left, top, right, bottom = font.getbbox(thing.text, stroke_width=stroke)
    canvas = Image.new("RGBA", (int(right - left) + 2, int(bottom - top) + 2))
    edge = (30, 30, 34) if thing.colour in LIGHT else (252, 252, 252)
    ImageDraw.Draw(canvas).text(
        (1 - left, 1 - top),
        thing.text,
        PAINTS[thing.colour],
        font,
        stroke_width=stroke,
        stroke_fill=edge,
    )
    return _turned(_varied(canvas, *fonts.variation_of(thing.font)), thing.rotation)


def _varied(drawn: Image.Image, lean: float, width: float) -> Image.Image:
    """Made wider and leaning to the right."""
    if (lean, width) == (0.0, 1.0):
        return drawn
    size = math.ceil(width * drawn.width + lean * drawn.height), drawn.height
    # From where each pixel comes: x is a * X + b * Y + c.
    across = 1 / width, lean / width, -lean * drawn.height / width
    matrix = (*across, 0.0, 1.0, 0.0)
    moved = drawn.convert("RGBa").transform(
        size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return moved.convert("RGBA")
