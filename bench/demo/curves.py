"""How the demo's stages learnt, as one picture.

Contract: a panel for each stage's log in FOLDER (`<stage>.jsonl`, one JSON object a step, as the
stages write them), in the order of training; thin lines are steps, thick ones their running mean.

Example: python -m bench.demo.curves bench/results/demo-training -o bench/results/demo-training.png
"""

from __future__ import annotations

import json
from pathlib import Path

import click
import numpy as np
from matplotlib.figure import Figure

from lite.cli import run
from lite.errors import BadInput

# Of each stage, what to draw of what it logs.
STAGES = {
    "language": ("loss",),
    "tower": ("contrast", "shown", "letter", "place"),
    "resampler": ("shown", "alike", "banded", "spelled"),
    "alignment": ("told", "looked"),
    "tuning": ("images", "text"),
}
# Part of a run that the running mean is over.
WINDOW = 0.02


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="PNG file.")
def command(folder: Path, output: Path) -> None:
    """Draw the logs in FOLDER."""
    logs = {stage: folder / f"{stage}.jsonl" for stage in STAGES}
    found = {stage: path for stage, path in logs.items() if path.exists()}
    if not found:
        raise BadInput(f"{folder} has no log of {', '.join(STAGES)}; name the folder with them.")
    figure = Figure(figsize=(3.2 * len(found), 3.2), layout="constrained")
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for axes, (stage, path) in zip(panels, found.items(), strict=True):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for name in STAGES[stage]:
            logged = [line for line in lines if name in line]
            at, values = (np.array([line[key] for line in logged]) for key in ("step", name))
            (thin,) = axes.plot(at, values, linewidth=0.4, alpha=0.4)
            smooth = _running_mean(values) if logged else values
            axes.plot(at[len(at) - len(smooth) :], smooth, color=thin.get_color(), label=name)
        axes.set_title(stage, fontsize=10)
        axes.set_xlabel("step")
        axes.set_yscale("log")
        axes.legend(fontsize=8)
    figure.savefig(output, dpi=110)


def _running_mean(values: np.ndarray) -> np.ndarray:
    window = max(1, int(len(values) * WINDOW))
    return np.convolve(values, np.full(window, 1 / window), mode="valid")


if __name__ == "__main__":
    run(command)
