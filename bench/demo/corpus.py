"""Text for pretraining the language model: facts, instructions, and captions as text.

Contract: `document(number, seed)` is a pure function. The facts are of all kinds, what is said of
scenes is of the training split only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from bench.demo.kinds import CATEGORIES, Kind, a, of_category, plural_of, statement
from bench.demo.looking import caption_of
from bench.demo.questions import example
from lite.files import replacing

# Skills whose answers follow from a caption.
TOLD = ("count", "presence", "reading", "absent")


def document(number: int, seed: int = 0) -> str:
    """One text, of one to some ten sentences."""
    chance = random.Random(f"{seed}/corpus/{number}")
    write = chance.choice((_facts, _facts, _instructions, _instructions, _caption, _told))
    return write(chance, number, seed)


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """The first `count` texts."""
    return (document(number, seed) for number in range(count))


def write_corpus(path: Path, count: int, seed: int = 0) -> None:
    """JSON lines with a `text` each; the file appears when it is complete."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for text in documents(count, seed):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _facts(chance: random.Random, number: int, seed: int) -> str:
    """All that is known of one to three kinds."""
    kinds = chance.sample(of_category(), chance.choice((1, 1, 2, 3)))
    return "\n".join(_about(chance, kind) for kind in kinds)


def _about(chance: random.Random, kind: Kind) -> str:
    sentences = [statement(kind, relation) for relation in kind.relations]
    chance.shuffle(sentences)
    colours = [look.colour for look in kind.looks if look.colour]
    if len(kind.looks) == 1 and colours:
        sentences.append(f"{a(kind.name).capitalize()} is usually {colours[0]}.")
    if chance.random() < 0.4:
        sentences.insert(0, f"Let us talk about {kind.plural}.")
    if chance.random() < 0.3:
        one_of = CATEGORIES[kind.category]
        sentences.append(f"{a(kind.name).capitalize()} is one of the {one_of}.")
    if kind.aliases and chance.random() < 0.3:
        alias = chance.choice(kind.aliases)
        if plural_of(alias) != plural_of(kind.name):
            sentences.append(f"Some say {alias} instead of {kind.name}.")
    return " ".join(sentences)


def _instructions(chance: random.Random, number: int, seed: int) -> str:
    """Instructions and their answers, of the training split."""
    start = chance.randrange(1 << 30)
    turns = [
        example("text", "train", start + i, seed).turns[0] for i in range(chance.randint(1, 4))
    ]
    return "\n".join(f"{turn.question}\n{turn.answer}" for turn in turns)


def _caption(chance: random.Random, number: int, seed: int) -> str:
    start = chance.randrange(1 << 30)
    scene = example("caption", "train", start, seed).scenes[0]
    return caption_of(scene, chance)


def _told(chance: random.Random, number: int, seed: int) -> str:
    """A caption, and questions that it answers."""
    found = example(chance.choice(TOLD), "train", chance.randrange(1 << 30), seed)
    turn = found.turns[0]
    return f"{caption_of(found.scenes[0], chance)}\n{turn.question}\n{turn.answer}"
