"""What all benchmarks' reports share: by what they were made, repeated figures, and files.

Contract: a report is a dict that json can write; `about` begins it.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bench.machine import load_average, machine
from lite.cli import say
from lite.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def about(libraries: Iterable[str]) -> dict[str, Any]:
    """The command, the machine with the versions of `libraries`, and how busy it is now."""
    return {
        "command": command_line(),
        "machine": machine(libraries),
        "load_average": load_average(),
    }


def command_line() -> str:
    """The running command as it was typed, whether by itself or through `lite-bench`."""
    context = click.get_current_context()
    own = sys.argv[2:] if context.parent else sys.argv[1:]
    return " ".join([context.command_path, *own])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Mean, standard deviation and number of repeated measurements."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {
        "mean": round(statistics.mean(values), 5),
        "deviation": round(deviation, 5),
        "n": len(values),
    }


def extremes(values: Sequence[float], digits: int) -> dict[str, float]:
    """Smallest, median and largest of repeated measurements."""
    found = {"min": min(values), "median": statistics.median(values), "max": max(values)}
    return {name: round(value, digits) for name, value in found.items()}


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report to a file, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def new_figure(width: float, height: float) -> Figure | None:
    """A figure of so many inches; None, with a word to the person, without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        say("No plot: matplotlib is not installed.")
        return None
    return Figure(figsize=(width, height), layout="constrained")
