"""How well a bundle answers: the ten skills of the demo's world, on scenes it was not trained on.

Contract: the same bundle, options and fonts give the same scores. Scenes are drawn at the bundle's
own image side and asked greedily, see `bench.demo.skill_scores`. A table on stdout, and with --json
the figures with machine and versions in a file. The user's cache stays untouched.

Example: python -m bench.demo.skills --each 100 --json bench/results/demo-skills.json
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

import lite
from bench.demo.dialogue import Dialogue
from bench.demo.questions import SKILLS
from bench.demo.skill_scores import (
    SEEN,
    Answerer,
    ChatTurn,
    Mark,
    difference,
    sample,
    score_bundle,
    summary,
)
from bench.demo.splits import NOVELTIES, SPLITS
from bench.report import about
from lite.cli import run
from lite.files import replacing

__all__ = ["Answerer", "ChatTurn", "Mark", "command", "sample", "score_bundle", "summary"]

LIBRARIES = ("mmgpt-lite", "onnxruntime", "pillow")
WIDTH = 100  # of the tables where they go to a file
NEW = (SEEN, *NOVELTIES[1:], "facts")
# What a skill has beyond the columns of the table.
FURTHER = {
    "whole_dialogues": "{:g} % of dialogues right in every turn",
    "slot_recall": "{:g} % of what is there is told",
    "invented_per_caption": "{:g} invented things a caption",
    "captions_with_invented": "{:g} % of captions name something that is not there",
    "f1": "F1 of yes {:g} %",
    "yes_ratio": "yes is said in {:g} %",
    "yes_ratio_of_truth": "yes is true in {:g} %",
    "exact_words": "{:g} % of words right with their capitals",
}


@click.command(name="skills")
@click.option("-m", "--model", metavar="BUNDLE", help="Bundle.  [default: the demo model]")
@click.option("--each", default=100, show_default=True, type=click.IntRange(1), help="Examples.")
@click.option("--split", type=click.Choice(SPLITS), default="test", show_default=True)
@click.option("--seed", default=0, show_default=True, help="Of the world.")
@click.option("--skill", "skills", multiple=True, type=click.Choice([*SKILLS]), help="Only this.")
@click.option("--compare", multiple=True, metavar="BUNDLE", help="The same for another bundle.")
@click.option("--threads", type=int, help="Worker threads.  [default: one per physical core]")
@click.option("--json", "report", type=click.Path(path_type=Path), help="Write the figures.")
@click.option("--answers", type=click.Path(path_type=Path), help="Write every answer, as lines.")
def command(
    model: str | None,
    each: int,
    split: str,
    seed: int,
    skills: tuple[str, ...],
    compare: tuple[str, ...],
    threads: int | None,
    report: Path | None,
    answers: Path | None,
) -> None:
    """Score a bundle on the ten skills of the demo's world; --compare may be repeated."""
    examples = sample(each, split, seed, skills or SKILLS)
    marks: list[list[Mark]] = []
    results: list[dict[str, Any]] = []
    for path in (model, *compare):
        found, own = _scored(path, threads, examples)
        results.append(found | ({"difference": difference(own, marks[0])} if marks else {}))
        marks.append(own)
    if report:
        first, *others = results
        record = about(LIBRARIES) | {"threads": threads}
        record |= {"split": split, "seed": seed}
        record |= first | ({"compared": others} if others else {})
        _write(report, json.dumps(record, indent=1))
    if answers:
        pairs = zip(results, marks, strict=True)
        lines = [json.dumps(_line(result, mark)) for result, own in pairs for mark in own]
        _write(answers, "\n".join(lines))
    _print(results)


def _scored(
    path: str | None, threads: int | None, examples: Sequence[Dialogue]
) -> tuple[dict[str, Any], list[Mark]]:
    """Figures and marks of one bundle."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    with _own_cache(), Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        model = lite.load(path, threads=threads)
        name = model.bundle.folder.resolve().name if path else "demo"
        task = bar.add_task(f"Asking {name}", total=len(examples))
        start = time.perf_counter()
        marks = score_bundle(model, examples, lambda: bar.advance(task))
    seconds = round(time.perf_counter() - start, 1)
    return {"bundle": name, **_about(model), "seconds": seconds} | summary(marks), marks


@contextmanager
def _own_cache() -> Iterator[None]:
    """Thousands of drawn scenes are nothing to keep in the user's cache."""
    before = os.environ.get("MMGPT_LITE_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MMGPT_LITE_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["MMGPT_LITE_CACHE"]
            if before is not None:
                os.environ["MMGPT_LITE_CACHE"] = before


def _about(model: lite.Model) -> dict[str, Any]:
    manifest = model.bundle.manifest
    return {
        "digest": model.bundle.digest[:16],
        "precision": manifest.precision,
        "parameters": manifest.sizes.parameters,
        "bytes": sum(record.size for record in manifest.files.values()),
        "image_side": manifest.preprocessing.size,
    }


def _line(result: dict[str, Any], mark: Mark) -> dict[str, Any]:
    fields = asdict(mark) | {"expected": mark.expected.to_json()}
    return {"bundle": result["bundle"], "digest": result["digest"], **fields}


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def _print(results: Sequence[dict[str, Any]]) -> None:
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(_scores(results[0]))
    for skill, found in results[0]["skills"].items():
        for words in further(found):
            console.print(f" {skill}: {words}", highlight=False)
    console.print(f" mean of the skills: {results[0]['mean']:g} %", highlight=False)
    if len(results) > 1:
        console.print(_comparison(results))


def _scores(result: dict[str, Any]) -> Table:
    """A row for each skill."""
    caption = f"{NEW[0]} to {NEW[-1]}: scores by what of it training never had; words: of a reply"
    table = Table("skill", "score %", "95 %", *NEW, "words", "examples", "turns", box=None)
    table.caption = caption
    for skill, found in result["skills"].items():
        low, high = found["interval"]
        new = [found["novelty"].get(name, {}).get("score", "") for name in NEW]
        row = (f"{found['score']:.1f}", f"{low:.1f}-{high:.1f}", *map(str, new))
        counts = (found["reply_words"], found["examples"], found["turns"])
        table.add_row(skill, *row, *map(str, counts))
    return table


def further(found: dict[str, Any]) -> list[str]:
    """What a skill has beyond the columns, in words."""
    flat = found | found.get("captions", {}) | found.get("presence", {})
    return [words.format(flat[name]) for name, words in FURTHER.items() if name in flat]


def _comparison(results: Sequence[dict[str, Any]]) -> Table:
    """Scores side by side, with differences from the first bundle."""
    first, *others = results
    table = Table("skill", _title(first), box=None)
    for other in others:
        for title in (_title(other), "difference", "same answers %"):
            table.add_column(title)
    for skill, found in first["skills"].items():
        row = [f"{found['score']:.1f}"]
        for other in others:
            gap = other["difference"][skill]
            row.append(f"{other['skills'][skill]['score']:.1f}")
            row.append(f"{gap['points']:+.1f} ± {gap['plus_minus']:.1f}")
            row.append(f"{gap['same_answers']:.1f}")
        table.add_row(skill, *row)
    ends = [part for o in others for part in (f"{o['mean']:.1f}", "", "")]
    table.add_row("mean", f"{first['mean']:.1f}", *ends)
    return table


def _title(result: dict[str, Any]) -> str:
    return f"{result['bundle']} ({result['precision'].get('decoder', '')})"


if __name__ == "__main__":
    run(command)
