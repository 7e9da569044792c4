"""What is told of a picture when the model first learns to see: dialogues about it.

Contract: `telling(number)` is a pure function: dialogues, each whole in itself, about the same
pictures. All is of the training split.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.demo.looking import (
    absent_turn,
    caption_turn,
    count_turn,
    presence_turn,
    reading_turn,
)
from bench.demo.placing import colour_turn, where_turn
from bench.demo.questions import example
from bench.demo.splits import Rules
from bench.demo.talk import Stage, Turn, groups_of, in_a_row
from bench.demo.training.scenes import scene
from bench.demo.world import Scene, Unfit

# How often it is the skill of two pictures, and how often, of the others, one whose turns refer to
# those before.
PAIRS, DIALOGUES = 0.2, 0.25
# Questions that are asked about a picture beside these, and the most of them in a dialogue.
QUESTIONS, LONGEST = 6, 3

Turns = tuple[Turn, ...]


def telling(number: int, seed: int = 0) -> list[Turns]:
    """Dialogues about the same pictures, none of which refers to another."""
    chance = random.Random(f"{seed}/telling/{number}")
    if chance.random() < PAIRS:
        return [example("pairs", "train", number, seed).turns]
    stage = Stage(chance, Rules("train"))
    if chance.random() < DIALOGUES:
        turns = example("dialogue", "train", number, seed).turns
    else:
        turns = (caption_turn(stage, scene(number, seed=seed)),)
    return [turns, *_dialogues(chance, _asked(stage, turns[0].scenes[0]))]


def _asked(stage: Stage, seen: Scene) -> list[Turn]:
    """Questions with their answers, each a different one."""
    found: dict[str, Turn] = {}
    for _ in range(4 * QUESTIONS):
        try:
            turn = stage.chance.choice(ASKED)(stage, seen)
        except Unfit:
            continue
        found.setdefault(turn.question, turn)
        if len(found) == QUESTIONS:
            break
    return list(found.values())


def _dialogues(chance: random.Random, turns: list[Turn]) -> list[Turns]:
    """Turns in a row, as many as comes; the first of each shows the picture."""
    found = []
    while turns:
        length = chance.randint(1, LONGEST)
        found.append(tuple(in_a_row(turns[:length])))
        turns = turns[length:]
    return found


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
