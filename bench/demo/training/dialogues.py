"""Dialogues about pictures, for the alignment stage.

Contract: `image_dialogues(number)` is a pure function: independent dialogues about the same
pictures, all of the training split.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.demo.dialogue import Sampler, Turn, groups_of, sharing_image
from bench.demo.perception import (
    absent_turn,
    caption_turn,
    count_turn,
    presence_turn,
    reading_turn,
)
from bench.demo.positions import colour_turn, where_turn
from bench.demo.questions import example
from bench.demo.splits import Rules
from bench.demo.training.scenes import scene
from bench.demo.world import Scene, Unfit

# Probability of an example of the skill `pairs`, and otherwise of one of the skill `dialogue`.
PAIRS, DIALOGUES = 0.2, 0.25
# Further questions about a picture, and how many of them a dialogue has at most.
QUESTIONS, LONGEST = 6, 3

Turns = tuple[Turn, ...]


def image_dialogues(number: int, seed: int = 0) -> list[Turns]:
    """Dialogues about the same pictures, none of which refers to another."""
    rng = random.Random(f"{seed}/telling/{number}")
    if rng.random() < PAIRS:
        return [example("pairs", "train", number, seed).turns]
    sampler = Sampler(rng, Rules("train"))
    if rng.random() < DIALOGUES:
        turns = example("dialogue", "train", number, seed).turns
    else:
        turns = (caption_turn(sampler, scene(number, seed=seed)),)
    return [turns, *_dialogues(rng, _asked(sampler, turns[0].scenes[0]))]


def _asked(sampler: Sampler, seen: Scene) -> list[Turn]:
    """Different questions about a scene, with their answers."""
    found: dict[str, Turn] = {}
    for _ in range(4 * QUESTIONS):
        try:
            turn = sampler.rng.choice(ASKED)(sampler, seen)
        except Unfit:
            continue
        found.setdefault(turn.question, turn)
        if len(found) == QUESTIONS:
            break
    return list(found.values())


def _dialogues(rng: random.Random, turns: list[Turn]) -> list[Turns]:
    """Turns split into dialogues of random lengths; the first turn of each shows the picture."""
    found = []
    while turns:
        length = rng.randint(1, LONGEST)
        found.append(tuple(sharing_image(turns[:length])))
        turns = turns[length:]
    return found


def _count(sampler: Sampler, seen: Scene) -> Turn:
    groups = groups_of(seen)
    if sampler.rng.random() < 0.15 or not groups:
        look = sampler.rules.look(sampler.rng, sampler.near(seen.kinds))
        return count_turn(sampler, seen, look, 0)
    return count_turn(sampler, seen, *sampler.rng.choice(groups))


def _presence(sampler: Sampler, seen: Scene) -> Turn:
    return presence_turn(sampler, seen, bool(seen.kinds) and sampler.rng.random() < 0.5)


def _absent(sampler: Sampler, seen: Scene) -> Turn:
    return absent_turn(sampler, seen, sampler.near(seen.kinds).name)


def _reading(sampler: Sampler, seen: Scene) -> Turn:
    if not seen.words:
        raise Unfit("no word")
    return reading_turn(sampler, seen, seen.words[0])


def _word_colour(sampler: Sampler, seen: Scene) -> Turn:
    if not seen.words:
        raise Unfit("no word")
    return colour_turn(sampler, seen, seen.words[0], "the word")


ASKED: tuple[Callable[[Sampler, Scene], Turn], ...] = (
    *[_count] * 3,
    *[_presence] * 3,
    _absent,
    _reading,
    _word_colour,
    *[where_turn] * 4,
)
