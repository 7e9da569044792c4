"""Questions and answers about scenes: their form, and the words they are made with.

Contract: each answer of a `Dialogue` follows from the scenes shown so far, or from the facts.
`Sampler` makes all random choices, within the rules of a split.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from bench.demo.answer_terms import NUMBERS, terms_in
from bench.demo.kinds import KINDS, Kind, Look, a, listed
from bench.demo.scoring import Expected
from bench.demo.splits import Rules
from bench.demo.world import WORD, Scene, Thing, compose

REGION_PHRASES = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}
RELATION_PHRASES = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
# Nouns for a thing of a category that do not name its kind.
CATEGORY_NOUNS = {
    "animal": "animal",
    "plant": "plant",
    "food": "food",
    "vehicle": "vehicle",
    "building": "building",
    "shape": "shape",
}


@dataclass(frozen=True)
class Turn:
    """A question, its answer, and what any right answer says.

    Attributes:
        question, answer: as they are trained.
        short: the answer in a word or two, as short-answer data sets have it.
        expected: for `bench.demo.scoring.score`.
        scenes: shown before the question.
    """

    question: str
    answer: str
    short: str
    expected: Expected
    scenes: tuple[Scene, ...] = ()


@dataclass(frozen=True)
class Dialogue:
    """An example of one skill; `novelty` says what about it is held back from training."""

    id: str
    skill: str
    novelty: str
    turns: tuple[Turn, ...]

    @property
    def scenes(self) -> tuple[Scene, ...]:
        return tuple(scene for turn in self.turns for scene in turn.scenes)


@dataclass(frozen=True)
class Sampler:
    """Random choices within the rules of a split."""

    rng: random.Random
    rules: Rules

    def kinds(
        self, number: int, categories: Collection[str] = (), excluding: Collection[str] = ()
    ) -> list[Kind]:
        """Different kinds, of some categories; a few times in a hundred a shape among them."""
        found: dict[str, Kind] = {}
        while len(found) < number:
            shape = not categories and self.rng.random() < 0.18
            pool = [
                name
                for name, kind in KINDS.items()
                if (
                    kind.category in categories
                    if categories
                    else (kind.category == "shape") is shape
                )
                and name not in excluding
                and name not in found
            ]
            name = self.rng.choice(pool)
            found[name] = KINDS[name]
        return list(found.values())

    def looks(
        self, number: int, categories: Collection[str] = (), excluding: Collection[str] = ()
    ) -> list[Look]:
        """Looks of different kinds."""
        kinds = self.kinds(number, categories, excluding)
        return [self.rules.look(self.rng, kind) for kind in kinds]

    def scene(self, groups: Sequence[tuple[Look, int]], words: int = 0) -> Scene:
        """A scene of these; with words if so many are wanted. Raises `Unfit`."""
        if self.rules.novelty == "font":
            words = max(words, 1)
        written = [self.rules.word(self.rng) for _ in range(words)]
        backgrounds = self.rules.sample_backgrounds(self.rng, [look for look, _ in groups])
        return compose(self.rng, groups, backgrounds, written)

    def near(self, kinds: Sequence[str]) -> Kind:
        """A kind that is not among these, but often of the same category as one of them."""
        named = [KINDS[kind].category for kind in kinds]
        same = (self.rng.choice(named),) if named and self.rng.random() < 0.5 else ()
        return self.kinds(1, same, excluding=kinds)[0]

    def say(self, *phrasings: str) -> str:
        """One of several phrasings."""
        return self.rng.choice(phrasings)


def sharing_image(turns: Sequence[Turn]) -> list[Turn]:
    """Turns about the same picture, which only the first shows."""
    return [*turns[:1], *(replace(turn, scenes=()) for turn in turns[1:])]


def name_of(look: Look) -> str:
    """The kind's name, after the colour where the kind has several looks."""
    kind = KINDS[look.kind]
    return f"{look.colour} {kind.name}" if len(kind.looks) > 1 else kind.name


def quantity(look: Look, number: int, one: str = "") -> str:
    """ "two red circles", "a dog", "no dogs"; `one` instead of the article."""
    kind = KINDS[look.kind]
    if number == 1:
        return f"{one} {name_of(look)}" if one else a(name_of(look))
    prefix = f"{look.colour} " if len(kind.looks) > 1 else ""
    return f"{NUMBERS[number] if number else 'no'} {prefix}{kind.plural}"


def region_phrase(region: str) -> str:
    """ "on the left", "in the top left corner"."""
    return REGION_PHRASES.get(region, f"in the {region} corner")


def is_are(number: int) -> str:
    return "is" if number == 1 else "are"


def sentence(text: str) -> str:
    """With a capital letter at its beginning."""
    return text[:1].upper() + text[1:]


def groups_of(scene: Scene) -> list[tuple[Look, int]]:
    """Looks of a scene and their numbers, from left to right; without words."""
    ordered = sorted(scene.things, key=lambda thing: thing.centre)
    looks = list(dict.fromkeys(thing.look for thing in ordered if thing.kind != WORD))
    return [(look, sum(thing.look == look for thing in scene.things)) for look in looks]


def contents(scene: Scene) -> str:
    """ "two dogs, a red circle and the word "OPEN" "."""
    named = [quantity(look, number) for look, number in groups_of(scene)]
    named += [f'the word "{word.text}"' for word in scene.words]
    return listed(named)


def unique_things(scene: Scene) -> list[Thing]:
    """Things that are the only one of their kind; without words."""
    return [t for t in scene.things if t.kind != WORD and scene.count(t.kind) == 1]


def mentioned_kinds(*texts: str) -> tuple[str, ...]:
    """Kinds that are named in some texts, for `Expected.allowed`."""
    return tuple(dict.fromkeys(kind for text in texts for kind in terms_in(text, "kinds")))
