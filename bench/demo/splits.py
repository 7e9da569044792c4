"""What belongs to training, validation and test.

Contract: seeds of the splits never meet, and what is held back (combinations of a kind or shape
with a colour, of a kind with a background, whole backgrounds, fonts, and facts asked about a
picture) is in no scene and no question of training and validation.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from bench.demo.answer_terms import NAMES
from bench.demo.backgrounds import BACKGROUNDS, Background, Paint, generated_background
from bench.demo.fonts import FONTS, VARIATIONS, varied
from bench.demo.kinds import PAINTS, Kind, Look
from bench.demo.sign_words import WORDS

SPLITS = ("train", "validation", "test")
# How many seeds each split has.
SPAN = 1 << 40

HELD_BACKGROUNDS = frozenset(("turquoise", "wine red", "dusk", "zigzags", "bricks"))
HELD_FONTS = frozenset(("grotesque oblique", "roman italic", "typewriter"))
HELD_COLOURS = frozenset(
    (
        ("circle", "orange"),
        ("square", "pink"),
        ("triangle", "blue"),
        ("diamond", "red"),
        ("star", "purple"),
        ("cross", "green"),
        ("circle", "black"),
        ("heart", "purple"),
        ("book", "orange"),
    )
)
# One pair of kind and background in so many is held back.
HELD_BACKGROUND_PAIRS = 8
# How often a scene of training has a made-up background, and from how many it takes one.
GENERATED_BACKGROUNDS, TRIED_BACKGROUNDS = 0.6, 12
# How often a word is one that exists: less often in training, which learns letters from the others.
REAL_WORDS, REAL_IN_TRAINING = 0.75, 0.5
# How often training varies a font.
VARIED_FONTS = 0.5
# A made-up background with all paints so near to those of one that is held back, in RGB, is it.
SAME_PAINT = 60
# One kind in so many has its facts in text only, never in talk about a picture.
HELD_FACTS = 4

# What is new about a scene of the test split; "" for nothing but its seed.
NOVELTIES = ("", "combination", "background", "font")


def seed_of(split: str, number: int) -> int:
    """The seed of a split's example, in a range that no other split touches.

    Raises:
        ValueError: the number is not in the range, or there is no such split.
    """
    if not 0 <= number < SPAN:
        raise ValueError(f"number {number} is outside the {SPAN} seeds of a split")
    return SPLITS.index(split) * SPAN + number


def novelty_of(split: str, number: int) -> str:
    """What is new in an example: in the test split each of `NOVELTIES` in turn."""
    return NOVELTIES[number % len(NOVELTIES)] if split == "test" else ""


def held_appearance(look: Look) -> bool:
    """Whether a kind or shape in this colour is held back."""
    return (look.kind, look.colour) in HELD_COLOURS


def held_pair(kind: str, background: str) -> bool:
    """Whether a kind is held back from a background."""
    return zlib.crc32(f"{kind}/{background}".encode()) % HELD_BACKGROUND_PAIRS == 0


def held_background(background: Background) -> bool:
    """Whether a background is held back, or a made-up one too much like one that is."""
    return background.name in HELD_BACKGROUNDS or any(
        held.pattern == background.pattern
        and (held.pattern or all(map(_same_paint, held.paints, background.paints)))
        for held in map(BACKGROUNDS.__getitem__, HELD_BACKGROUNDS)
        if held.style == background.style
    )


def _same_paint(one: Paint, other: Paint) -> bool:
    return math.dist(one, other) < SAME_PAINT


def held_facts(kind: Kind) -> bool:
    """Whether a kind's facts are asked about a picture in the test split only."""
    return zlib.crc32(f"facts/{kind.name}".encode()) % HELD_FACTS == 0


@dataclass(frozen=True)
class Rules:
    """What an example may use.

    Attributes:
        split: of `SPLITS`.
        novelty: of `NOVELTIES`.
    """

    split: str
    novelty: str = ""

    def look(self, rng: random.Random, kind: Kind) -> Look:
        """One of a kind's looks."""
        held = self.novelty == "combination"
        return rng.choice([look for look in kind.looks if held or not held_appearance(look)])

    def sample_backgrounds(self, rng: random.Random, looks: Sequence[Look]) -> list[Background]:
        """Those of `backgrounds`, or as often in training some that are made up."""
        if self.split == "test" or rng.random() >= GENERATED_BACKGROUNDS:
            return self.backgrounds(looks)
        tried = [generated_background(rng.randrange(SPAN)) for _ in range(TRIED_BACKGROUNDS)]
        return [g for g in tried if not held_background(g) and not _held_with(looks, g)]

    def backgrounds(self, looks: Sequence[Look]) -> list[Background]:
        """Backgrounds of the tables on which these may stand.

        In a new combination, only with a held pair.
        """
        new = self.novelty == "background"
        found = [g for g in BACKGROUNDS.values() if (g.name in HELD_BACKGROUNDS) is new]
        if new:
            return found
        if self.novelty == "combination":
            if any(map(held_appearance, looks)):
                return found
            return [g for g in found if _held_with(looks, g)]
        return [g for g in found if not _held_with(looks, g)]

    def word(self, rng: random.Random) -> tuple[str, str, str]:
        """A word to draw, its colour and its font."""
        new = self.novelty == "font"
        fonts = [font for font in FONTS if (font in HELD_FONTS) is new]
        real = REAL_WORDS if self.split == "test" else REAL_IN_TRAINING
        text = rng.choice(WORDS) if rng.random() < real else made_up(rng)
        while text in NAMES:
            text = made_up(rng)
        text = rng.choice((str.upper, str.lower, str.capitalize, str.upper))(text)
        paint, font = rng.choice(list(PAINTS)), rng.choice(fonts)
        if self.split != "test" and rng.random() < VARIED_FONTS:
            font = varied(font, rng.choice(list(VARIATIONS)))
        return text, paint, font

    def asks_facts(self, kind: Kind) -> bool:
        """Whether facts of a kind may be asked about a picture."""
        return self.split == "test" or not held_facts(kind)


def _held_with(looks: Sequence[Look], background: Background) -> bool:
    return any(held_pair(look.kind, background.name) for look in looks)


def made_up(rng: random.Random) -> str:
    """A word that is in no list, so that reading goes letter by letter."""
    pairs = rng.choice((1, 2, 2))
    text = "".join(rng.choice("bdfghklmnprstvwz") + rng.choice("aeiou") for _ in range(pairs))
    return text + rng.choice(("", *"klmnrstx")) if pairs > 1 else text + rng.choice("klmnrst")
