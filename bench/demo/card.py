"""The scores in the demo model's card, from the results of `lite-bench skills`.

Contract: replaces the table of the card and nothing else; the same results, the same table.

Example: python -m bench.demo.card bench/results/demo-skills.json
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from bench.demo.questions import SKILLS
from bench.demo.skills import NEW, further
from lite.cli import run
from lite.errors import BadInput
from lite.files import replacing

RESULTS = Path(__file__).parents[1] / "results" / "demo-skills.json"
CARD = Path(__file__).parents[2] / "lite" / "demo" / "README.md"
BEGIN, END = "<!-- scores -->", "<!-- end of scores -->"
EMPTY = "TO-BE-MEASURED"


def table(result: dict[str, Any] | None) -> str:
    """The table; for None one whose cells are yet to be measured."""
    heads = ("skill", "score %", "95 %", *NEW, "words of a reply", "besides")
    lines = [_row(heads), _row(["---"] * len(heads))]
    for skill in SKILLS:
        found = result and result["skills"].get(skill)
        lines.append(_row([skill, *(_cells(found) if found else [EMPTY] * (len(heads) - 1))]))
    mean = f"{result['mean']:g}" if result else EMPTY
    lines.append(_row(["mean", mean, *[""] * (len(heads) - 2)]))
    return "\n".join(lines)


def fill(card: str, result: dict[str, Any]) -> str:
    """A card with the table of these results.

    Raises:
        BadInput: the card has no place for it.
    """
    before, begin, rest = card.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BadInput(f"The card lacks the lines {BEGIN} and {END}; put them round its table.")
    return f"{before}{BEGIN}\n{table(result)}\n{END}{after}"


def _cells(found: dict[str, Any]) -> list[str]:
    low, high = found["interval"]
    new = [found["novelty"].get(name, {}).get("score", "") for name in NEW]
    besides = "; ".join(further(found))
    numbers = [f"{found['score']:g}", f"{low:g} to {high:g}", *map(str, new)]
    return [*numbers, f"{found['reply_words']:g}", besides]


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("results", type=click.Path(path_type=Path, exists=True), default=RESULTS)
@click.argument("card", type=click.Path(path_type=Path, exists=True), default=CARD)
def command(results: Path, card: Path) -> None:
    """Put the scores in RESULTS into CARD."""
    filled = fill(card.read_text(encoding="utf-8"), json.loads(results.read_text(encoding="utf-8")))
    with replacing(card) as partial:
        partial.write_text(filled, encoding="utf-8")


if __name__ == "__main__":
    run(command)
