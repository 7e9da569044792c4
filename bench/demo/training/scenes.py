"""Scenes to look at, one for each number.

Contract: `scene(number)` is a pure function. Some scenes are those of captions, the others those
that the skills ask about, so that what is seen in training is what will be asked.
"""

from __future__ import annotations

import random

from bench.demo.data import captioned
from bench.demo.questions import example
from bench.demo.world import Scene

# What the others are drawn for; letters and high numbers take longest to learn.
ASKED = (*["count"] * 5, "place", "presence", *["reading"] * 5, "dialogue", "pairs")
CAPTIONED = 0.3


def scene(number: int, split: str = "train", seed: int = 0) -> Scene:
    """The scene of a number."""
    chance = random.Random(f"{seed}/scenes/{split}/{number}")
    if chance.random() < CAPTIONED:
        return captioned(split, number, seed)[0]
    return chance.choice(example(chance.choice(ASKED), split, number, seed).scenes)
