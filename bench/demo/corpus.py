"""Text for pretraining the language model: facts, instructions, and captions as text.

Contract: `document(number, seed)` is a pure function. Facts are about all kinds; scenes are of the
training split only.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from bench.demo.kinds import CATEGORIES, Kind, a, of_category, plural_of, statement
from bench.demo.perception import caption_of
from bench.demo.questions import example
from lite.files import replacing

# Skills whose answers follow from a caption.
CAPTION_SKILLS = ("count", "presence", "reading", "absent")


def document(number: int, seed: int = 0) -> str:
    """One text, of one to some ten sentences."""
    rng = random.Random(f"{seed}/corpus/{number}")
    write = rng.choice(
        (_facts, _facts, _instructions, _instructions, _caption, _caption_with_question)
    )
    return write(rng, number, seed)


def documents(count: int, seed: int = 0) -> Iterator[str]:
    """The first `count` texts."""
    return (document(number, seed) for number in range(count))


def write_corpus(path: Path, count: int, seed: int = 0) -> None:
    """JSON lines with a `text` each; the file appears when it is complete."""
    with replacing(path) as partial, partial.open("w", encoding="utf-8") as file:
        for text in documents(count, seed):
            file.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")


def _facts(rng: random.Random, number: int, seed: int) -> str:
    """All that is known of one to three kinds."""
    kinds = rng.sample(of_category(), rng.choice((1, 1, 2, 3)))
    return "\n".join(_facts_of(rng, kind) for kind in kinds)


def _facts_of(rng: random.Random, kind: Kind) -> str:
    sentences = [statement(kind, relation) for relation in kind.relations]
    rng.shuffle(sentences)
    colours = [look.colour for look in kind.looks if look.colour]
    if len(kind.looks) == 1 and colours:
        sentences.append(f"{a(kind.name).capitalize()} is usually {colours[0]}.")
    if rng.random() < 0.4:
        sentences.insert(0, f"Let us talk about {kind.plural}.")
    if rng.random() < 0.3:
        one_of = CATEGORIES[kind.category]
        sentences.append(f"{a(kind.name).capitalize()} is one of the {one_of}.")
    if kind.aliases and rng.random() < 0.3:
        alias = rng.choice(kind.aliases)
        if plural_of(alias) != plural_of(kind.name):
            sentences.append(f"Some say {alias} instead of {kind.name}.")
    return " ".join(sentences)


def _instructions(rng: random.Random, number: int, seed: int) -> str:
    """Instructions and their answers, of the training split."""
    start = rng.randrange(1 << 30)
    turns = [example("text", "train", start + i, seed).turns[0] for i in range(rng.randint(1, 4))]
    return "\n".join(f"{turn.question}\n{turn.answer}" for turn in turns)


def _caption(rng: random.Random, number: int, seed: int) -> str:
    start = rng.randrange(1 << 30)
    scene = example("caption", "train", start, seed).scenes[0]
    return caption_of(scene, rng)


def _caption_with_question(rng: random.Random, number: int, seed: int) -> str:
    """A caption, and questions that it answers."""
    found = example(rng.choice(CAPTION_SKILLS), "train", rng.randrange(1 << 30), seed)
    turn = found.turns[0]
    return f"{caption_of(found.scenes[0], rng)}\n{turn.question}\n{turn.answer}"
