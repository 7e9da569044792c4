"""Backgrounds of scenes: plain, gradients and patterns.

Contract: a background is a name, colours and a pattern; drawing it is a function of those, the side
and a seed. A thing whose colour word is in `hides` would be hard to see on it. Besides the tables
there are generated ones, each a function of its number.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from bench.demo.kinds import PAINTS

Paint = tuple[int, int, int]
STYLES = "plain", "gradient", "cluttered"
# Prefix of the name of a generated background; its number follows.
MADE_UP = "made up "
FADING = "a background that fades"
# A thing that is no further in RGB from what is behind it would be hard to see.
HIDDEN = 100


@dataclass(frozen=True)
class Background:
    """A background.

    Attributes:
        name: what it is called.
        style: of `STYLES`.
        paints: one paint, two ends of a gradient, or a pattern's base and its marks.
        hides: colour words of things that would be hard to see on it.
        phrase: for captions, after "on".
        pattern: of a cluttered one.
    """

    name: str
    style: str
    paints: tuple[Paint, ...]
    hides: frozenset[str]
    phrase: str
    pattern: str = ""


def _plain_words(colour: str) -> str:
    return f"a {colour} background"


def _pattern_words(pattern: str) -> str:
    return f"a background with {pattern}"


def _plain(name: str, paint: Paint, hides: str) -> Background:
    return Background(name, "plain", (paint,), frozenset(hides.split()), _plain_words(name))


def _gradient(name: str, ends: tuple[Paint, Paint], hides: str, words: str) -> Background:
    phrase = f"{FADING} from {words}"
    return Background(name, "gradient", ends, frozenset(hides.split()), phrase)


def _pattern(name: str, paints: tuple[Paint, ...], hides: str, pattern: str) -> Background:
    return Background(
        name, "cluttered", paints, frozenset(hides.split()), _pattern_words(pattern), pattern
    )


_ALL = (
    _plain("white", (250, 250, 250), "white"),
    _plain("cream", (250, 240, 212), "white yellow"),
    _plain("light blue", (186, 220, 250), "white blue"),
    _plain("mint green", (196, 238, 212), "white green"),
    _plain("lavender", (222, 210, 246), "white pink purple"),
    _plain("light grey", (214, 216, 221), "white grey"),
    _plain("rosy", (252, 216, 226), "white pink"),
    _plain("sand coloured", (234, 212, 168), "white yellow orange"),
    _plain("sky blue", (112, 186, 240), "blue"),
    _plain("grass green", (134, 196, 104), "green"),
    _plain("dark blue", (24, 36, 88), "blue black purple brown"),
    _plain("black", (20, 20, 24), "black brown grey purple blue"),
    _plain("dark green", (16, 72, 48), "green black brown blue"),
    _plain("turquoise", (128, 216, 214), "green blue"),
    _plain("wine red", (98, 20, 44), "red brown black purple"),
    _gradient(
        "sunrise", ((255, 196, 208), (255, 226, 170)), "pink orange yellow white", "pink to yellow"
    ),
    _gradient("sky", ((126, 190, 246), (240, 248, 255)), "blue white", "blue to white"),
    _gradient("meadow", ((190, 226, 252), (150, 210, 116)), "blue green white", "blue to green"),
    _gradient(
        "night", ((16, 18, 40), (52, 64, 130)), "black blue purple brown grey", "black to blue"
    ),
    _gradient("beach", ((170, 224, 238), (244, 224, 176)), "blue yellow white", "blue to sand"),
    _gradient("fog", ((240, 240, 244), (186, 192, 200)), "white grey", "white to grey"),
    _gradient("candy", ((216, 196, 250), (253, 206, 226)), "pink purple white", "purple to pink"),
    _gradient("dusk", ((92, 62, 138), (246, 164, 120)), "purple orange brown", "purple to orange"),
    _pattern("blue dots", ((236, 244, 252), (176, 206, 240)), "white blue", "dots"),
    _pattern("pink dots", ((254, 240, 244), (246, 196, 212)), "white pink", "dots"),
    _pattern("green stripes", ((236, 248, 236), (192, 226, 194)), "white green", "stripes"),
    _pattern("yellow stripes", ((255, 250, 232), (252, 232, 170)), "white yellow", "stripes"),
    _pattern("grey checks", ((244, 244, 246), (212, 216, 222)), "white grey", "checks"),
    _pattern("orange checks", ((255, 244, 230), (252, 216, 176)), "white orange yellow", "checks"),
    _pattern(
        "confetti",
        ((250, 248, 244), (250, 196, 196), (190, 220, 250), (196, 234, 196), (252, 234, 170)),
        "white pink",
        "confetti",
    ),
    _pattern(
        "bubbles", ((206, 232, 248), (236, 248, 255), (178, 214, 240)), "white blue", "bubbles"
    ),
    _pattern(
        "scribbles", ((246, 244, 238), (206, 200, 192), (190, 206, 216)), "white grey", "scribbles"
    ),
    _pattern(
        "night scribbles",
        ((34, 38, 62), (62, 70, 104), (86, 66, 100)),
        "black blue purple brown grey",
        "scribbles",
    ),
    _pattern("zigzags", ((240, 250, 248), (180, 222, 214)), "white green", "zigzags"),
    _pattern("bricks", ((226, 186, 168), (206, 156, 136)), "brown orange pink red", "bricks"),
)
BACKGROUNDS = {background.name: background for background in _ALL}


def background_of(name: str) -> Background:
    """The background of this name, from the tables or generated."""
    if name.startswith(MADE_UP):
        return generated_background(int(name.removeprefix(MADE_UP)))
    return BACKGROUNDS[name]


@lru_cache(maxsize=256)
def generated_background(number: int) -> Background:
    """A background of random colours; the few of the tables alone would be memorized."""
    rng = random.Random(f"ground/{number}")
    style = rng.choice(STYLES)
    base = _any_paint(rng)
    pattern = rng.choice(list(PATTERNS)) if style == "cluttered" else ""
    paints: tuple[Paint, ...]
    if style == "plain":
        paints, phrase = (base,), _plain_words(_nearest(base))
    elif style == "gradient":
        paints, phrase = (base, _any_paint(rng)), FADING
    else:
        # Marks like their base, as in the tables: what stands out should be the things.
        marks = [_shifted(base, rng) for _ in range(rng.randint(2, 4))]
        paints, phrase = (base, *marks), _pattern_words(pattern)
    hides = {word for word, paint in PAINTS.items() for one in paints if _near(paint, one)}
    return Background(f"{MADE_UP}{number}", style, paints, frozenset(hides), phrase, pattern)


def _any_paint(rng: random.Random) -> Paint:
    """Every hue, from pale to strong and from dark to light."""
    hue, saturation, value = rng.random(), rng.random(), rng.uniform(0.08, 1)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def _shifted(paint: Paint, rng: random.Random) -> Paint:
    red, green, blue = (min(255, max(0, one + rng.randint(-60, 60))) for one in paint)
    return red, green, blue


def _near(one: Paint, other: Paint) -> bool:
    return math.dist(one, other) < HIDDEN


def _nearest(paint: Paint) -> str:
    return min(PAINTS, key=lambda word: math.dist(PAINTS[word], paint))


def draw_background(background: Background, side: int, seed: int) -> Image.Image:
    """The background as an RGB picture of side x side pixels."""
    if background.style == "plain":
        return Image.new("RGB", (side, side), background.paints[0])
    if background.style == "gradient":
        first, last = (np.array(paint, np.float32) for paint in background.paints)
        part = np.linspace(0, 1, side, dtype=np.float32)[:, None, None]
        rows = np.broadcast_to(first + (last - first) * part, (side, side, 3))
        return Image.fromarray(np.rint(rows).astype(np.uint8))
    # Twice as large and halved, which smooths the edges.
    picture = Image.new("RGB", (2 * side, 2 * side), background.paints[0])
    pen, rng = ImageDraw.Draw(picture), random.Random(seed)
    PATTERNS[background.pattern](pen, 2 * side, background.paints[1:], rng)
    return picture.reduce(2)


def _dots(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    step = side / rng.randint(6, 10)
    radius = step * rng.uniform(0.2, 0.32)
    for row in range(12):
        for column in range(12):
            x, y = (column + row % 2 / 2) * step, row * step
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), marks[0])


def _stripes(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    step, slant = side / rng.randint(4, 9), rng.choice((0, side // 2, side))
    for i in range(-10, 12):
        x = i * step
        pen.polygon(
            [(x, 0), (x + step / 2, 0), (x + step / 2 + slant, side), (x + slant, side)], marks[0]
        )


def _checks(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    step = side / rng.randint(5, 9)
    for row in range(10):
        for column in range(row % 2, 10, 2):
            pen.rectangle(
                (column * step, row * step, (column + 1) * step, (row + 1) * step), marks[0]
            )


def _confetti(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    for _ in range(70):
        x, y, size = (
            rng.uniform(0, side),
            rng.uniform(0, side),
            side * rng.uniform(0.01, 0.025),
        )
        pen.regular_polygon(
            (x, y, size), rng.choice((3, 4, 8)), rng.randint(0, 90), rng.choice(marks)
        )


def _bubbles(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    for _ in range(22):
        x, y, radius = (
            rng.uniform(0, side),
            rng.uniform(0, side),
            side * rng.uniform(0.02, 0.09),
        )
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), marks[0], marks[1], width=2)


def _scribbles(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    for _ in range(12):
        x, y, size = (
            rng.uniform(0, side),
            rng.uniform(0, side),
            side * rng.uniform(0.1, 0.4),
        )
        start, box = rng.randint(0, 359), (x - size, y - size, x + size, y + size)
        pen.arc(box, start, start + rng.randint(60, 240), rng.choice(marks), side // 60)


def _zigzags(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    step = side / rng.randint(6, 9)
    for row in range(-1, 10):
        points = [(i * step, (row + i % 2 * 0.6) * step) for i in range(11)]
        pen.line(points, marks[0], width=max(2, side // 40), joint="curve")


def _bricks(
    pen: ImageDraw.ImageDraw, side: int, marks: tuple[Paint, ...], rng: random.Random
) -> None:
    high, wide = side / 9, side / 5
    for row in range(9):
        for column in range(-1, 6):
            x = (column + row % 2 / 2) * wide
            pen.rectangle((x + 2, row * high + 2, x + wide - 2, (row + 1) * high - 2), marks[0])


Pattern = Callable[[ImageDraw.ImageDraw, int, tuple[Paint, ...], random.Random], None]
PATTERNS: dict[str, Pattern] = {
    "dots": _dots,
    "stripes": _stripes,
    "checks": _checks,
    "confetti": _confetti,
    "bubbles": _bubbles,
    "scribbles": _scribbles,
    "zigzags": _zigzags,
    "bricks": _bricks,
}
# Every phrase for a background in captions.
PHRASES = tuple(
    dict.fromkeys((*(background.phrase for background in _ALL), *map(_plain_words, PAINTS), FADING))
)
