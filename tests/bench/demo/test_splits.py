"""What is tested was never trained on."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest

from bench.demo.backgrounds import BACKGROUNDS, MADE_UP, STYLES, background_of
from bench.demo.dialogue import Dialogue
from bench.demo.fonts import FONTS, VARIATIONS, WITH
from bench.demo.kinds import KINDS
from bench.demo.questions import SKILLS, example
from bench.demo.splits import (
    HELD_BACKGROUNDS,
    HELD_COLOURS,
    HELD_FONTS,
    NOVELTIES,
    SPAN,
    SPLITS,
    held_appearance,
    held_background,
    held_facts,
    held_pair,
    seed_of,
)
from bench.demo.world import WORD, Scene

EACH = 60
SEEING = [skill for skill in SKILLS if skill != "text"]


@cache
def examples(split: str) -> list[Dialogue]:
    return [example(skill, split, i) for skill in SEEING for i in range(EACH)]


def scenes(split: str) -> list[tuple[str, Scene]]:
    return [(one.novelty, scene) for one in examples(split) for scene in one.scenes]


def combination(scene: Scene) -> bool:
    """Whether a held-back combination is in a scene."""
    things = [thing for thing in scene.things if thing.kind != WORD]
    return any(held_appearance(t.look) or held_pair(t.kind, scene.background) for t in things)


def test_seeds_of_the_splits_never_meet() -> None:
    edges = [(seed_of(split, 0), seed_of(split, SPAN - 1)) for split in SPLITS]
    assert all(last < first for (_, last), (first, _) in itertools.pairwise(edges))
    with pytest.raises(ValueError, match="outside"):
        seed_of("train", SPAN)


def test_no_scene_is_in_two_splits() -> None:
    drawn = [{scene for _, scene in scenes(split)} for split in SPLITS]
    assert not drawn[0] & drawn[1] | drawn[0] & drawn[2] | drawn[1] & drawn[2]


@pytest.mark.parametrize("split", ["train", "validation"])
def test_nothing_held_back_is_trained_or_validated(split: str) -> None:
    for novelty, scene in scenes(split):
        assert not novelty
        assert not combination(scene)
        assert scene.background not in HELD_BACKGROUNDS
        assert not {word.font for word in scene.words} & HELD_FONTS
    for one in examples(split):
        if one.skill == "knowledge":
            assert not held_facts(KINDS[one.turns[0].expected.subject])


def test_the_test_split_has_something_of_everything_new() -> None:
    found = scenes("test")
    assert set(NOVELTIES) <= {novelty for novelty, _ in found}
    for novelty, scene in found:
        assert combination(scene) or novelty != "combination"
        assert scene.background in HELD_BACKGROUNDS or novelty != "background"
        assert novelty != "font" or {word.font for word in scene.words} <= HELD_FONTS
    assert any(one.novelty == "facts" for one in examples("test"))


def test_what_is_held_back_exists_and_is_a_small_part() -> None:
    assert set(BACKGROUNDS) > HELD_BACKGROUNDS
    assert set(FONTS) > HELD_FONTS
    looks = {(look.kind, look.colour) for kind in KINDS.values() for look in kind.looks}
    assert looks > HELD_COLOURS
    for colour_of in {kind for kind, _ in HELD_COLOURS}:
        assert sum(kind == colour_of for kind, _ in HELD_COLOURS) < len(KINDS[colour_of].looks) / 2
    pairs = [held_pair(kind, background) for kind in KINDS for background in BACKGROUNDS]
    assert 0.08 < sum(pairs) / len(pairs) < 0.18


def test_generated_backgrounds_are_many_and_none_is_like_one_that_is_held_back() -> None:
    for split in ("train", "validation"):
        made = {
            scene.background for _, scene in scenes(split) if scene.background.startswith(MADE_UP)
        }
        assert len(made) > 0.4 * len(scenes(split))
        assert not any(held_background(background_of(name)) for name in made)
        assert {background_of(name).style for name in made} == {*STYLES}
    assert not any(scene.background.startswith(MADE_UP) for _, scene in scenes("test"))


def test_fonts_are_varied_in_training_but_never_those_that_are_held_back() -> None:
    for split in ("train", "validation"):
        written = [word.font for _, scene in scenes(split) for word in scene.words]
        made = [font.partition(WITH) for font in written if font not in FONTS]
        assert 0.3 < len(made) / len(written) < 0.7
        assert {variation for *_, variation in made} == {*VARIATIONS}
        assert {font for font, *_ in made} <= {*FONTS} - HELD_FONTS
    assert {word.font for _, scene in scenes("test") for word in scene.words} <= {*FONTS}


def test_a_background_too_much_like_one_that_is_held_back_is_held_back_too() -> None:
    turquoise, dusk = BACKGROUNDS["turquoise"], BACKGROUNDS["dusk"]
    red, green, blue = turquoise.paints[0]
    near, far = ((red + 30, green, blue),), ((red + 90, green, blue),)
    assert held_background(replace(turquoise, name="other", paints=near))
    assert not held_background(replace(turquoise, name="other", paints=far))
    assert not held_background(replace(turquoise, name="other", paints=near, style="gradient"))
    assert not held_background(replace(dusk, name="other", paints=(dusk.paints[0], near[0])))
    bricks = BACKGROUNDS["bricks"]
    assert held_background(replace(bricks, name="other", paints=((0, 0, 0), (9, 9, 9))))


def test_nothing_stands_on_a_background_that_hides_it() -> None:
    for _, scene in scenes("train"):
        assert not {thing.colour for thing in scene.things} & background_of(scene.background).hides


def test_an_example_is_the_same_every_time() -> None:
    assert example("dialogue", "test", 7) == example("dialogue", "test", 7)
    assert example("dialogue", "test", 7) != example("dialogue", "test", 7, seed=1)


def test_counts_and_yes_and_no_are_balanced() -> None:
    counts = Counter(example("count", "train", i).turns[0].expected.number for i in range(700))
    assert sorted(counts) == [0, 1, 2, 3, 4, 5, 6]
    assert min(counts.values()) > 60
    yes = sum(example("presence", "train", i).turns[0].expected.number for i in range(400))
    assert 170 < yes < 230
