"""Scenes: which things are where, and what is therefore true.

Contract: a `Scene` is the whole truth of a picture, in fractions of its side, with y downwards; it
needs no font and no pixel. What is not clear (a thing both left of and above another) has no
relation, so that nobody asks for it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.demo.backgrounds import Background
from bench.demo.kinds import KINDS, Look

Box = tuple[float, float, float, float]

WORD = "word"
MARGIN = 0.025
# A direction is clear where the distance along it is so many times the one across.
CLEAR = 1.6
# Where one third of the picture ends and the next begins, and how near to it neither is clear.
THIRDS, NEAR_EDGE = (0.38, 0.62), 0.03
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
# Largest and smallest side of a thing, by the number of things.
SIZES = {1: (0.72, 0.42), 2: (0.46, 0.32), 3: (0.40, 0.28), 4: (0.36, 0.26), 5: (0.32, 0.24)}
MANY = (0.29, 0.22)


class Unfit(Exception):
    """A random choice that gives no scene, or no clear answer: sample again."""


@dataclass(frozen=True)
class Thing:
    """A thing in a scene.

    Attributes:
        look: its kind, glyph and colour; kind `WORD` for a word.
        box: left, top, right, bottom; all that is drawn of it is inside.
        rotation: degrees, counter-clockwise.
        text, font: of a word.
    """

    look: Look
    box: Box
    rotation: float = 0.0
    text: str = ""
    font: str = ""

    @property
    def kind(self) -> str:
        return self.look.kind

    @property
    def colour(self) -> str:
        return self.look.colour

    @property
    def centre(self) -> tuple[float, float]:
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


@dataclass(frozen=True)
class Scene:
    """A picture's truth: its things, the background's name, and the seed of its pattern."""

    things: tuple[Thing, ...]
    background: str
    seed: int = 0

    def things_of(self, kind: str, colour: str = "") -> list[Thing]:
        """Things of a kind, of one colour where it is given."""
        return [t for t in self.things if t.kind == kind and colour in ("", t.colour)]

    def count(self, kind: str, colour: str = "") -> int:
        return len(self.things_of(kind, colour))

    @property
    def kinds(self) -> list[str]:
        """Kinds that are there, each once, from left to right; without words."""
        ordered = sorted(self.things, key=lambda thing: thing.centre)
        return list(dict.fromkeys(t.kind for t in ordered if t.kind != WORD))

    @property
    def words(self) -> list[Thing]:
        return self.things_of(WORD)


def relation(first: Thing, second: Thing) -> str | None:
    """Where the first is, seen from the second: left, right, above, below; None if not clear."""
    (x1, y1), (x2, y2) = first.centre, second.centre
    dx, dy = x1 - x2, y1 - y2
    if abs(dx) >= CLEAR * abs(dy) and _apart(first.box, second.box, 0):
        return "left" if dx < 0 else "right"
    if abs(dy) >= CLEAR * abs(dx) and _apart(first.box, second.box, 1):
        return "above" if dy < 0 else "below"
    return None


def _apart(one: Box, other: Box, axis: int) -> bool:
    return one[axis + 2] <= other[axis] + 1e-6 or other[axis + 2] <= one[axis] + 1e-6


def region(thing: Thing) -> str | None:
    """The part of the picture a thing is in, as "top left" or "middle"; None if on a border."""
    columns, rows = ("left", "", "right"), ("top", "", "bottom")
    across, down = (_third(value) for value in thing.centre)
    if across is None or down is None:
        return None
    return " ".join(filter(None, (rows[down], columns[across]))) or "middle"


def _third(value: float) -> int | None:
    near = any(abs(value - edge) < NEAR_EDGE for edge in THIRDS)
    return None if near else third_of(value)


def third_of(value: float) -> int:
    """The third of a side, from 0, that holds a place along it."""
    return sum(value >= edge for edge in THIRDS)


def outermost(things: Iterable[Thing], direction: str) -> Thing | None:
    """The one thing that is farthest to a side by a clear distance, or None.

    Args:
        things: to choose from.
        direction: left, right, above (for top) or below (for bottom).
    """
    axis, sign = (
        (0 if direction in ("left", "right") else 1),
        (1 if direction in ("left", "above") else -1),
    )
    ordered = sorted(things, key=lambda thing: sign * thing.centre[axis])
    if not ordered or sign * (ordered[0].centre[axis] - 0.5) > -0.08:
        return None
    if len(ordered) > 1 and sign * (ordered[1].centre[axis] - ordered[0].centre[axis]) < 0.14:
        return None
    return ordered[0]


def compose(
    rng: random.Random,
    groups: Sequence[tuple[Look, int]],
    backgrounds: Sequence[Background],
    words: Sequence[tuple[str, str, str]] = (),
) -> Scene:
    """Place things without overlap on a background on which all can be seen.

    Args:
        chance: decides everything that is not given.
        groups: looks, and how many of each.
        grounds: backgrounds to choose from.
        words: text, colour word and font of each word.

    Raises:
        Unfit: no background suits, or no place was found.
    """
    looks = [look for look, number in groups for _ in range(number)]
    colours = {look.colour for look in looks} | {colour for _, colour, _ in words}
    seen = [background for background in backgrounds if not colours & background.hides]
    if not seen:
        raise Unfit("no background shows all")
    # By style first: there are more plain ones than others.
    style = rng.choice(sorted({background.style for background in seen}))
    background = rng.choice([background for background in seen if background.style == style])
    most, least = SIZES.get(len(looks) + len(words), MANY)
    sizes = [_word_size(text, rng) for text, _, _ in words]
    alike = rng.uniform(least, most) if rng.random() < 0.4 else None
    for _ in looks:
        size = alike or rng.uniform(least, most)
        sizes.append((size, size))
    boxes = _place(rng, sizes)
    things = [
        Thing(Look(WORD, colour=colour), box, rng.choice((0, 0, 0, -8, 8, 12)), text, font)
        for (text, colour, font), box in zip(words, boxes, strict=False)
    ]
    for look, box in zip(looks, boxes[len(words) :], strict=True):
        things.append(Thing(look, box, _rotation(look, rng)))
    rng.shuffle(things)
    return Scene(tuple(things), background.name, rng.randrange(2**31))


def _rotation(look: Look, rng: random.Random) -> float:
    if rng.random() < 0.35:
        return 0.0
    # A square on its tip would be a diamond.
    most = 25 if KINDS[look.kind].category != "shape" else 10
    return float(round(rng.uniform(-most, most) / 5) * 5)


def _word_size(text: str, rng: random.Random) -> tuple[float, float]:
    high = rng.uniform(0.18, 0.26)
    wide = high * (0.62 * len(text) + 0.35)
    return (wide, high) if wide < 0.92 else (0.92, high * 0.92 / wide)


def _place(rng: random.Random, sizes: Sequence[tuple[float, float]]) -> list[Box]:
    """A box for each width and height, none overlapping, all inside."""
    lined = rng.random()
    for attempt in range(60):
        shrink = 1 - 0.005 * attempt
        boxes: list[Box] = []
        row = rng.uniform(0.3, 0.7) if lined < 0.12 and len(sizes) < 5 else None
        for wide, high in ((w * shrink, h * shrink) for w, h in sizes):
            found = _free(rng, wide, high, boxes, row)
            if found is None:
                break
            boxes.append(found)
        else:
            return boxes
    raise Unfit("no place for all")


def _free(
    rng: random.Random, wide: float, high: float, taken: list[Box], row: float | None
) -> Box | None:
    """A place that is free; near the height of `row` where it is given."""
    for _ in range(40):
        left = rng.uniform(MARGIN, 1 - MARGIN - wide)
        top = rng.uniform(MARGIN, 1 - MARGIN - high)
        if row is not None:
            top = min(max(row - high / 2 + rng.uniform(-0.03, 0.03), MARGIN), 1 - MARGIN - high)
        right, bottom = left + wide, top + high
        for x1, y1, x2, y2 in taken:
            if (
                right + MARGIN > x1
                and x2 + MARGIN > left
                and bottom + MARGIN > y1
                and y2 + MARGIN > top
            ):
                break
        else:
            return left, top, right, bottom
    return None
