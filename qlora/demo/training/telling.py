"""What is told of a picture when the model first learns to see: captions, questions, answers.

Contract: `telling(number)` is a pure function: pictures, and plain texts without any template, each
true of them by itself. All is of the training split.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from qlora.demo.looking import (
    absent_turn,
    caption_of,
    count_turn,
    presence_turn,
    reading_turn,
)
from qlora.demo.placing import colour_turn, where_turn
from qlora.demo.splits import Rules
from qlora.demo.talk import Stage, Turn, groups_of
from qlora.demo.training.scenes import scene
from qlora.demo.world import Scene, Unfit

# How often two pictures are told of, one after the other.
TWO = 0.15
# Questions that are asked about a picture beside its caption.
QUESTIONS = 8


@dataclass(frozen=True)
class Text:
    """What is told, after what was asked for it, if anything was."""

    told: str
    asked: str = ""


def telling(number: int, seed: int = 0) -> tuple[list[Scene], list[Text]]:
    """Pictures, and texts about them, none of which refers to another."""
    chance = random.Random(f"{seed}/telling/{number}")
    first = scene(2 * number, seed=seed)
    if chance.random() < TWO:
        both = [first, scene(2 * number + 1, seed=seed)]
        orders = ("first", "second")
        told = [
            f"The {order} picture. {caption_of(one, chance, detail=False)}"
            for order, one in zip(orders, both, strict=True)
        ]
        return both, [Text("\n".join(told))]
    asked = _asked(Stage(chance, Rules("train")), first)
    return [first], [Text(caption_of(first, chance)), *asked]


def _asked(stage: Stage, seen: Scene) -> list[Text]:
    """Questions with their answers, each a different one."""
    found: dict[str, Text] = {}
    for _ in range(4 * QUESTIONS):
        try:
            turn = stage.chance.choice(ASKED)(stage, seen)
        except Unfit:
            continue
        found.setdefault(turn.question, Text(turn.answer, turn.question))
        if len(found) == QUESTIONS:
            break
    return list(found.values())


def _count(stage: Stage, seen: Scene) -> Turn:
    groups = groups_of(seen)
    if stage.chance.random() < 0.15 or not groups:
        look = stage.rules.look(stage.chance, stage.near(seen.kinds))
        return count_turn(stage, seen, look, 0)
    return count_turn(stage, seen, *stage.chance.choice(groups))


def _presence(stage: Stage, seen: Scene) -> Turn:
    return presence_turn(stage, seen, bool(seen.kinds) and stage.chance.random() < 0.5)


def _absent(stage: Stage, seen: Scene) -> Turn:
    return absent_turn(stage, seen, stage.near(seen.kinds).name)


def _reading(stage: Stage, seen: Scene) -> Turn:
    if not seen.words:
        raise Unfit("no word")
    return reading_turn(stage, seen, seen.words[0])


def _word_colour(stage: Stage, seen: Scene) -> Turn:
    if not seen.words:
        raise Unfit("no word")
    return colour_turn(stage, seen, seen.words[0], "the word")


ASKED: tuple[Callable[[Stage, Scene], Turn], ...] = (
    *[_count] * 3,
    *[_presence] * 3,
    _absent,
    _reading,
    _word_colour,
    *[where_turn] * 4,
)
