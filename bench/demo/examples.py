"""The pictures in examples/ and a conversation about each, composed by hand.

Contract: scenes such as training has, with nothing that is held back from it, drawn larger; each
question comes with what a right answer says. `write` makes the pictures and `conversations.json`,
which holds for each turn the images shown, the question, a right answer (`truth`) and what a bundle
answered (`answer`; null where none was asked, since another picture may have another answer).

Example: python -m bench.demo.examples --answers lite/demo/bundle
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

import lite
from bench.demo.dialogue import Sampler, Turn, contents, name_of, sentence
from bench.demo.draw import draw
from bench.demo.kinds import KINDS, Look, a
from bench.demo.knowledge import fact_turn
from bench.demo.perception import (
    DESCRIBE,
    absent_turn,
    caption_expected,
    caption_of,
    count_turn,
    reading_turn,
)
from bench.demo.positions import colour_turn, naming_turn, region_turn
from bench.demo.scoring import Expected, score
from bench.demo.splits import Rules
from bench.demo.world import WORD, Scene, Thing
from lite.cli import entry_point, say
from lite.files import replacing

SIDE = 448
FOLDER = "examples"
CONVERSATIONS = "conversations.json"
MAX_TOKENS = 128
# Width of a letter and of the edges, in heights of a word.
LETTER, EDGES = 0.62, 0.35

Choice = TypeVar("Choice")


class _First(random.Random):
    """Chooses what comes first, so that a question has its plainest phrasing."""

    def choice(self, seq: Sequence[Choice]) -> Choice:  # type: ignore[override]
        return seq[0]


SAMPLER = Sampler(_First(0), Rules("train"))


def look_of(name: str) -> Look:
    """The look that is called so: "dog", "red apple", "blue circle"."""
    return next(
        look
        for kind in KINDS.values()
        for look in kind.looks
        if name in (name_of(look), f"{look.colour} {kind.name}")
    )


def put(name: str, x: float, y: float, size: float, rotation: float = 0.0) -> Thing:
    """A thing by the middle and the side of its box, in fractions of the picture's side."""
    half = size / 2
    return Thing(look_of(name), (x - half, y - half, x + half, y + half), rotation)


def write_word(text: str, colour: str, x: float, y: float, high: float) -> Thing:
    """A word by the middle and the height of its box."""
    half, half_wide = high / 2, high * (LETTER * len(text) + EDGES) / 2
    box = (x - half_wide, y - half, x + half_wide, y + half)
    return Thing(Look(WORD, colour=colour), box, 0.0, text, "sans bold")


def scene(background: str, *things: Thing) -> Scene:
    return Scene(things, background, seed=5)


PICTURES = {
    "breakfast": scene(
        "grey checks",
        put("croissant", 0.19, 0.25, 0.28, 10),
        put("croissant", 0.22, 0.70, 0.28, -15),
        put("cup of tea", 0.52, 0.24, 0.27),
        put("fried egg", 0.55, 0.68, 0.29),
        put("honey pot", 0.83, 0.22, 0.25),
        put("red apple", 0.84, 0.85, 0.22, 10),
    ),
    "farm": scene(
        "sky",
        put("sun", 0.85, 0.17, 0.24),
        put("tractor", 0.22, 0.40, 0.28),
        put("cow", 0.56, 0.44, 0.28),
        put("sheep", 0.17, 0.80, 0.25),
        put("sheep", 0.47, 0.83, 0.25),
        put("hen", 0.83, 0.76, 0.25),
    ),
    "park": scene(
        "grass green",
        put("bicycle", 0.26, 0.26, 0.36),
        put("dog", 0.66, 0.58, 0.38, 5),
        put("football", 0.22, 0.80, 0.28),
    ),
    "garden": scene(
        "meadow",
        put("sunflower", 0.20, 0.30, 0.34),
        put("dog", 0.66, 0.70, 0.36, -5),
        put("sunflower", 0.60, 0.25, 0.34),
    ),
    "harbour": scene(
        "sunrise",
        put("ship", 0.26, 0.22, 0.30),
        put("sailing boat", 0.72, 0.23, 0.28),
        put("sailing boat", 0.50, 0.55, 0.28, 5),
        put("crab", 0.19, 0.82, 0.27),
        put("anchor", 0.82, 0.80, 0.27),
    ),
    "sign": scene(
        "pink dots",
        write_word("CAFE", "blue", 0.46, 0.18, 0.24),
        put("cup of tea", 0.25, 0.64, 0.34),
        put("cat", 0.72, 0.60, 0.36),
    ),
    "shapes": scene(
        "white",
        put("red circle", 0.17, 0.20, 0.24),
        put("red circle", 0.47, 0.33, 0.24),
        put("blue circle", 0.22, 0.73, 0.25),
        put("yellow star", 0.83, 0.20, 0.28),
        put("green square", 0.78, 0.58, 0.24),
        put("purple triangle", 0.50, 0.82, 0.25),
    ),
    "tiger": scene("bubbles", put("tiger", 0.50, 0.52, 0.64)),
}


@dataclass(frozen=True)
class Conversation:
    """Turns, and which pictures each of them shows."""

    turns: tuple[tuple[Turn, tuple[str, ...]], ...]


def about(picture: str, *turns: Turn) -> Conversation:
    """A conversation about one picture, shown first."""
    return Conversation(tuple((t, () if i else (picture,)) for i, t in enumerate(turns)))


def describe(one: Scene, question: str = DESCRIBE[0], detail: bool = True) -> Turn:
    answer = caption_of(one, SAMPLER.rng, detail)
    return Turn(question, answer, sentence(f"{contents(one)}."), caption_expected(one))


def count(one: Scene, name: str, number: int) -> Turn:
    return count_turn(SAMPLER, one, look_of(name), number)


def is_there(name: str, there: bool) -> Turn:
    answer = f"Yes, there is {a(name)}" if there else f"No, there is no {name}"
    expected = Expected("yes", subject=name, number=int(there))
    question = f"Is there {a(name)} in the picture?"
    return Turn(question, f"{answer} in the picture.", "Yes." if there else "No.", expected)


def fact(name: str, relation: str, it: str) -> Turn:
    kind = KINDS[name]
    return fact_turn(SAMPLER, kind, next(r for r in kind.relations if r.name == relation), it)


def which_picture(name: str, order: str) -> Turn:
    answer = f"The {order} picture shows the {name}."
    expected = Expected("first", ((order,),), "orders")
    return Turn(f"Which picture shows the {name}?", answer, f"The {order}.", expected)


def in_both(name: str) -> Turn:
    expected = Expected("all", ((name,),), "kinds")
    answer = f"Both pictures show {a(name)}."
    return Turn("What is in both pictures?", answer, sentence(f"{a(name)}."), expected)


def conversations() -> list[Conversation]:
    """What is asked about the pictures."""
    table, farm, harbour = (PICTURES[name] for name in ("breakfast", "farm", "harbour"))
    sign, shapes, tiger = (PICTURES[name] for name in ("sign", "shapes", "tiger"))
    word = sign.words[0]
    return [
        about(
            "breakfast",
            describe(table),
            count(table, "croissant", 2),
            colour_turn(SAMPLER, table, table.things_of("apple")[0], "the apple"),
            region_turn(SAMPLER, table, table.things_of("fried egg")[0]),
            is_there("pizza", False),
        ),
        about(
            "farm",
            naming_turn(SAMPLER, farm, farm.things_of("sun")[0], "thing", "at the top"),
            count(farm, "sheep", 2),
            region_turn(SAMPLER, farm, farm.things_of("hen")[0]),
            fact("tractor", "use", "the tractor"),
            fact("cow", "sound", "a cow"),
        ),
        about(
            "harbour",
            describe(harbour),
            count(harbour, "sailing boat", 2),
            region_turn(SAMPLER, harbour, harbour.things_of("crab")[0]),
            absent_turn(SAMPLER, harbour, "whale"),
        ),
        about(
            "sign",
            reading_turn(SAMPLER, sign, word),
            replace(colour_turn(SAMPLER, sign, word, "it"), answer="The word is blue."),
            count(sign, "cat", 1),
        ),
        about(
            "shapes",
            count(shapes, "red circle", 2),
            count(shapes, "blue circle", 1),
            colour_turn(SAMPLER, shapes, shapes.things_of("star")[0], "the star"),
            describe(shapes, DESCRIBE[1]),
        ),
        about(
            "tiger",
            describe(tiger),
            fact("tiger", "sound", "the animal in the picture"),
            fact("tiger", "home", "a tiger"),
        ),
        Conversation(
            (
                (describe(PICTURES["park"], detail=False), ("park",)),
                (describe(PICTURES["garden"], "And in this one?", detail=False), ("garden",)),
                (which_picture("bicycle", "first"), ()),
                (in_both("dog"), ()),
            )
        ),
        Conversation(((which_picture("tiger", "second"), ("garden", "tiger")),)),
    ]


def ask(model: lite.Model, one: Conversation, folder: Path) -> list[str]:
    """What a model answers, turn by turn, to the pictures in a folder."""
    # With a KV cache of its own, as in a new process.
    chat, answers = lite.Chat(model, decoder=model.decoder.fork()), []
    for turn, pictures in one.turns:
        shown = [folder / f"{name}.png" for name in pictures]
        # In int8, tokens that share a run share a scale: without prompt lookup, which goes by
        # measured times, the same bundle always gives the same answer.
        events = chat.ask(turn.question, shown, max_tokens=MAX_TOKENS, prompt_lookup=False)
        answers.append("".join(event.text for event in events))
    return answers


def record(one: Conversation, answers: Sequence[str | None]) -> list[dict[str, Any]]:
    """A conversation as the file has it."""
    return [
        {
            "images": [f"{name}.png" for name in pictures],
            "question": turn.question,
            "truth": turn.answer,
            "answer": answer,
        }
        for (turn, pictures), answer in zip(one.turns, answers, strict=True)
    ]


def write(folder: Path, model: lite.Model | None = None) -> None:
    """Write pictures and conversations, with the answers of a model if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, one in PICTURES.items():
        with replacing(folder / f"{name}.png") as path:
            draw(one, SIDE).save(path, "PNG", optimize=True)
    records = []
    for talk in conversations():
        answers = ask(model, talk, folder) if model else [None] * len(talk.turns)
        records.append(record(talk, answers))
        for (turn, _), answer in zip(talk.turns, answers, strict=True):
            if answer is not None:
                say(f"{score(answer, turn.expected):4.0%}  {turn.question}  {answer}")
    with replacing(folder / CONVERSATIONS) as path:
        text = json.dumps(records, ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=FOLDER)
@click.option("--answers", metavar="BUNDLE", help="Ask this bundle, and write what it answers.")
def command(folder: Path, answers: str | None) -> None:
    """Draw the example pictures into FOLDER, and write the conversations about them."""
    write(folder, lite.load(answers) if answers else None)


main = entry_point(command)

if __name__ == "__main__":
    main()
