"""A small data set of drawn pictures and plain instructions, in the formats that people have.

Contract: same seed, same files. It is there to try training without a download, and its answers
are exact because the script that draws knows what it drew.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from lite.files import new_folder
from qlora.recipes.schema import SetSettings

PICTURES = 160
SIDE = 56
COLOURS = {
    "red": (214, 40, 40),
    "green": (46, 160, 67),
    "blue": (38, 84, 200),
    "yellow": (244, 208, 63),
    "white": (245, 245, 245),
    "black": (25, 25, 25),
}
SHAPES = ("circle", "square", "triangle")
WORDS = ("table", "house", "window", "street", "market", "garden", "bread", "water", "horse")


def write_data(folder: Path, seed: int = 0) -> list[SetSettings]:
    """Draw pictures and write two data sets about them, and one without pictures.

    Args:
        folder: where they go; what is there already stays.
        seed: of everything.

    Returns:
        The data sets, with paths below `folder`.
    """
    if not folder.exists():
        with new_folder(folder) as partial:
            _write_all(partial, random.Random(seed))
    return [
        SetSettings(path="descriptions.json", images="images"),
        SetSettings(path="dialogues.json", images="images"),
        SetSettings(path="instructions.json"),
    ]


def _write_all(folder: Path, chance: random.Random) -> None:
    images = folder / "images"
    images.mkdir(parents=True)
    scenes = [_draw(images / f"{number}.png", chance) for number in range(PICTURES)]
    half = PICTURES // 2
    _write(folder / "descriptions.json", [_description(i, scenes[i]) for i in range(half)])
    _write(folder / "dialogues.json", [_dialogue(i, scenes[i]) for i in range(half, PICTURES)])
    _write(folder / "instructions.json", [_instruction(chance) for _ in range(PICTURES)])


def _draw(path: Path, chance: random.Random) -> tuple[str, str, str]:
    """One shape on a plain ground; returns its colour, its kind and the ground's colour."""
    colour, ground = chance.sample(list(COLOURS), 2)
    shape = chance.choice(SHAPES)
    picture = Image.new("RGB", (SIDE, SIDE), COLOURS[ground])
    pen = ImageDraw.Draw(picture)
    size = chance.randint(SIDE // 3, SIDE // 2)
    left, top = chance.randint(2, SIDE - size - 2), chance.randint(2, SIDE - size - 2)
    box = (left, top, left + size, top + size)
    if shape == "circle":
        pen.ellipse(box, COLOURS[colour])
    elif shape == "square":
        pen.rectangle(box, COLOURS[colour])
    else:
        corners = [(left, top + size), (left + size, top + size), (left + size // 2, top)]
        pen.polygon(corners, COLOURS[colour])
    picture.save(path)
    return colour, shape, ground


def _description(number: int, scene: tuple[str, str, str]) -> dict[str, Any]:
    """A LLaVA record of one turn."""
    colour, shape, ground = scene
    answer = f"The picture shows a {colour} {shape} on a {ground} ground."
    return _record(number, ["What is in the picture?", answer])


def _dialogue(number: int, scene: tuple[str, str, str]) -> dict[str, Any]:
    """A LLaVA record of several turns."""
    colour, shape, ground = scene
    turns = ["Which shape do you see?", f"It is a {shape}."]
    turns += [f"What colour is the {shape}?", f"The {shape} is {colour}."]
    turns += ["And the ground behind it?", f"The ground is {ground}."]
    return _record(number, turns)


def _record(number: int, turns: list[str]) -> dict[str, Any]:
    texts = [f"{turns[0]}\n<image>", *turns[1:]]
    messages = [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": str(number), "image": f"{number}.png", "conversations": messages}


def _instruction(chance: random.Random) -> dict[str, str]:
    """An Alpaca record."""
    first, second = chance.sample(WORDS, 2)
    if chance.random() < 0.5:
        answer = f"The words are {first} and {second}."
        return {"instruction": "Which words are given?", "input": f"{first} {second}"} | {
            "output": answer
        }
    return {"instruction": f"Say {first} twice.", "input": "", "output": f"{first} {first}"}


def _write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text(json.dumps(records, indent=1), encoding="utf-8")
