"""Scenes for training the vision tower and the resampler, one for each number.

Contract: `scene(number)` is a pure function. Some scenes are those of captions, the others those
of the skills' questions, so that training sees the distribution that is asked about.
"""

from __future__ import annotations

import random

from bench.demo.data import captioned
from bench.demo.questions import example
from bench.demo.world import Scene

# Skills of the others, by weight; letters and high counts take longest to learn.
ASKED = (*["count"] * 5, "place", "presence", *["reading"] * 5, "dialogue", "pairs")
CAPTIONED = 0.3


def scene(number: int, split: str = "train", seed: int = 0) -> Scene:
    """The scene of a number."""
    rng = random.Random(f"{seed}/scenes/{split}/{number}")
    if rng.random() < CAPTIONED:
        return captioned(split, number, seed)[0]
    return rng.choice(example(rng.choice(ASKED), split, number, seed).scenes)
