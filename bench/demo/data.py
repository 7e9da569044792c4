"""Data sets of the demo world on disk, in the formats that people have.

Contract: same arguments, same files. Each file is written whole or not at all, and pictures that
are there already stay, so that a run which was cut goes on where it was. For a split there are

    <folder>/<split>/captions.json      pictures with three captions each (COCO, Karpathy's list)
    <folder>/<split>/visual.json        talk about one picture (LLaVA)
    <folder>/<split>/pairs.json         talk about several pictures (messages)
    <folder>/<split>/instructions.json  talk without a picture (Alpaca)
    <folder>/<split>/truth.jsonl        what right answers say; of validation and test
    <folder>/<split>/images/            their pictures
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from bench.demo.dialogue import Dialogue, Sampler, contents, sentence
from bench.demo.draw import draw
from bench.demo.perception import caption_of, crowded_scene
from bench.demo.questions import SKILLS, TRIES, example
from bench.demo.splits import SPLITS, Rules, novelty_of, seed_of
from bench.demo.world import Scene, Unfit
from lite.cli import entry_point, say
from lite.errors import BadInput
from lite.files import replacing
from qlora.recipes.schema import SetSettings

CAPTIONS = "captions"
# Of captioned pictures, how many show a single kind: names are learnt there first.
PLAIN = 0.35
FILES = {CAPTIONS: "captions.json", "pairs": "pairs.json", "text": "instructions.json"}
VISUAL = "visual.json"
CHUNK = 64


@dataclass(frozen=True)
class Job:
    """What decides the content of a split's files.

    Attributes:
        split: of `SPLITS`.
        counts: number of examples of each skill, and of `CAPTIONS`.
        seed: of the world.
        side: of pictures, in pixels.
        suffix: "png" or "jpg".
        short: part of the examples with answers of a word or two; a larger part has the same
            ones and more.
    """

    split: str
    counts: Mapping[str, int]
    seed: int = 0
    side: int = 112
    suffix: str = "png"
    short: float = 0.0


def write(folder: Path, job: Job, workers: int = 0) -> list[SetSettings]:
    """Write a split's data sets.

    Args:
        folder: gets a folder of the split's name.
        job: what to write.
        workers: processes that draw; 0 draws in this one.

    Returns:
        The data sets, with paths below `folder`.

    Raises:
        BadInput: a font is missing, the folder has pictures of another seed, side or format, or
            the job names an unknown split or skill.
    """
    unknown = [name for name in job.counts if name not in (*SKILLS, CAPTIONS)]
    if unknown or job.split not in SPLITS or job.suffix not in ("png", "jpg"):
        raise BadInput(
            f"There is no {(*unknown, job.split, job.suffix)[0]!a} to write; skills are "
            f"{', '.join((CAPTIONS, *SKILLS))}, splits {', '.join(SPLITS)}, formats png and jpg."
        )
    home = folder / job.split
    _claim(home, job)
    records: dict[str, list[dict[str, Any]]] = {}
    truths: list[dict[str, Any]] = []
    for skill, count in job.counts.items():
        file = FILES.get(skill, VISUAL)
        for record, truth in _parallel(partial(_one, home, job, skill), count, workers):
            records.setdefault(file, []).append(record)
            truths += [truth] if truth else []
    for file, listed in records.items():
        with replacing(home / file) as path:
            path.write_text(json.dumps(listed, ensure_ascii=False), encoding="utf-8")
    if job.split != "train":
        with replacing(home / "truth.jsonl") as path:
            lines = (json.dumps(truth, ensure_ascii=False) + "\n" for truth in truths)
            path.write_text("".join(lines), encoding="utf-8")
    return [_settings(job.split, file) for file in records]


def captioned(split: str, number: int, seed: int = 0) -> tuple[Scene, list[str]]:
    """A scene for alignment and contrastive training, and three captions of it."""
    own, novelty = seed_of(split, number), novelty_of(split, number)
    for attempt in range(TRIES):
        rng = random.Random(f"{seed}/{CAPTIONS}/{own}/{attempt}")
        try:
            sampler = Sampler(rng, Rules(split, novelty))
            plain = rng.random() < PLAIN
            scene = crowded_scene(
                sampler, (1,) if plain else (1, 2, 2, 3, 3, 4), 0.05 if plain else 0.25
            )
        except Unfit:
            continue
        brief = sentence(f"{contents(scene)}.")
        return scene, [caption_of(scene, rng), caption_of(scene, rng, detail=False), brief]
    raise RuntimeError(f"{split} {number}: no scene after {TRIES} tries")


def _settings(split: str, file: str) -> SetSettings:
    images = None if file == FILES["text"] else f"{split}/images"
    return SetSettings(path=f"{split}/{file}", images=images, name=f"{split}-{Path(file).stem}")


def _claim(home: Path, job: Job) -> None:
    """A folder keeps the pictures of one seed, side and format."""
    mine = {"seed": job.seed, "side": job.side, "suffix": job.suffix}
    path = home / "pictures.json"
    if not path.exists():
        with replacing(path) as partial:
            partial.write_text(json.dumps(mine), encoding="utf-8")
    elif json.loads(path.read_text(encoding="utf-8")) != mine:
        raise BadInput(
            f"{home} has pictures of another seed, side or format; give the same ones to go on "
            f"with it, or another folder."
        )


def _parallel(
    make: Callable[[int], tuple[Any, Any]], count: int, workers: int
) -> Iterator[tuple[Any, Any]]:
    if not workers:
        yield from map(make, range(count))
        return
    with ProcessPoolExecutor(workers) as pool:
        yield from pool.map(make, range(count), chunksize=CHUNK)


def _one(home: Path, job: Job, skill: str, number: int) -> tuple[Any, Any]:
    """An example's record and truth, and its pictures on disk."""
    if skill == CAPTIONS:
        scene, captions = captioned(job.split, number, job.seed)
        image = _picture(home, job, scene, f"{skill}/{number // 1000}/{number}")
        return {"image": image, "caption": captions, "image_id": f"{job.split}-{number}"}, None
    found = example(skill, job.split, number, job.seed)
    images = [
        _picture(home, job, scene, f"{skill}/{number // 1000}/{number}{'abc'[i]}")
        for i, scene in enumerate(found.scenes)
    ]
    short = random.Random(f"{job.seed}/short/{found.id}").random() < job.short
    answers = [turn.short if short else turn.answer for turn in found.turns]
    record = {"pairs": _messages, "text": _alpaca}.get(skill, _llava)(found, images, answers)
    return record, None if job.split == "train" else _truth(found, images)


def _picture(home: Path, job: Job, scene: Scene, name: str) -> str:
    """Draws a scene where it is not there yet; returns the name below the folder of images."""
    image = f"{name}.{job.suffix}"
    path = home / "images" / image
    if not path.exists():
        options: dict[str, Any] = {"quality": 92} if job.suffix == "jpg" else {"compress_level": 3}
        with replacing(path) as partial:
            kind = "JPEG" if job.suffix == "jpg" else "PNG"
            draw(scene, job.side).save(partial, kind, **options)
    return image


def _llava(found: Dialogue, images: list[str], answers: list[str]) -> dict[str, Any]:
    messages = []
    for i, (turn, answer) in enumerate(zip(found.turns, answers, strict=True)):
        question = turn.question if i else f"<image>\n{turn.question}"
        messages += [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": found.id, "image": images[0], "conversations": messages}


def _messages(found: Dialogue, images: list[str], answers: list[str]) -> dict[str, Any]:
    messages = []
    for turn, answer in zip(found.turns, answers, strict=True):
        question = "<image>\n" * len(turn.scenes) + turn.question
        messages += [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ]
    return {"id": found.id, "messages": messages, "images": images}


def _alpaca(found: Dialogue, images: list[str], answers: list[str]) -> dict[str, Any]:
    return {"instruction": found.turns[0].question, "input": "", "output": answers[0]}


def _truth(found: Dialogue, images: list[str]) -> dict[str, Any]:
    waiting = iter(images)
    turns = [
        {
            "images": [next(waiting) for _ in turn.scenes],
            "question": turn.question,
            "answer": turn.answer,
            "expected": turn.expected.to_json(),
        }
        for turn in found.turns
    ]
    return {"id": found.id, "skill": found.skill, "novelty": found.novelty, "turns": turns}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--split", type=click.Choice(SPLITS), default="train", show_default=True)
@click.option("--each", default=1000, show_default=True, help="Examples of each skill.")
@click.option("--skill", "skills", multiple=True, type=click.Choice([*SKILLS]), help="Only this.")
@click.option("--captions", default=0, show_default=True, help="Captioned pictures.")
@click.option("--seed", default=0, show_default=True)
@click.option("--side", default=112, show_default=True, help="Pixels.")
@click.option("--format", "suffix", type=click.Choice(["png", "jpg"]), default="png")
@click.option("--short", default=0.0, help="Part of the examples with short answers.")
@click.option("--workers", default=0, help="Processes that draw.")
def command(
    folder: Path,
    split: str,
    each: int,
    skills: tuple[str, ...],
    captions: int,
    seed: int,
    side: int,
    suffix: str,
    short: float,
    workers: int,
) -> None:
    """Draw scenes and write questions about them into FOLDER."""
    counts = {CAPTIONS: captions} | dict.fromkeys(skills or SKILLS, each)
    counts = {name: count for name, count in counts.items() if count}
    for made in write(folder, Job(split, counts, seed, side, suffix, short), workers):
        say(f"{folder / made.path}")


main = entry_point(command)

if __name__ == "__main__":
    main()
