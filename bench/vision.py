"""The vision encoder in int8 beside float: time for one image, and how far its features move.

Contract: both graphs are made from the same random weights of a shape, opened in this process, and
run in turns on the same pixels. Features are `resampled_tokens`, compared by their relative error
(norm of the difference over the norm).

Example: lite-bench vision --shape 9b -o bench/results/vision-9b-cpu.json
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnxruntime as ort

from bench.machine import RUNTIME
from bench.random_weights import random_weights
from bench.report import about, spread, write_report
from bench.shapes import SHAPES, config_of
from export.graph import Graph
from export.precision import precision
from export.vision_graph import VisionGraph
from lite.bundle.manifest import VISION
from lite.cli import run, say
from lite.image.preprocessing import load_image, to_pixels
from lite.runtime.device import CPU
from lite.runtime.ort_session import open_session
from qlora.checkpoints.pages import Walk

PRECISIONS = ("fp32", "int8")


@click.command(name="vision")
@click.option("--shape", type=click.Choice(SHAPES), default="9b", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="[default: one per physical core]")
@click.option("--repeat", type=click.IntRange(1), default=7, show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def command(shape: str, threads: int | None, repeat: int, output: Path | None) -> None:
    """Measure the vision encoder in int8 beside fp32."""
    with tempfile.TemporaryDirectory() as scratch:
        sessions = {name: _session(shape, name, Path(scratch), threads) for name in PRECISIONS}
        seconds, errors = measure(sessions, _pixels(shape, repeat + 1))
    report = {
        **about((*RUNTIME, "torch")),
        "shape": shape,
        "threads": threads,
        "seconds": {name: spread(values) for name, values in seconds.items()},
        "times_faster": round(
            statistics.median(a / b for a, b in zip(*seconds.values(), strict=True)), 2
        ),
        "relative_error": round(statistics.mean(errors), 5),
    }
    if output:
        write_report(report, output)
    click.echo(json.dumps(report, indent=1))


def measure(
    sessions: dict[str, ort.InferenceSession], images: list[np.ndarray]
) -> tuple[dict[str, list[float]], list[float]]:
    """Seconds of each session for each image but the first, and relative errors of the features.

    Args:
        sessions: the reference first.
        images: pixels `[1, 3, S, S]` each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sessions}
    errors = []
    for number, pixels in enumerate(images):
        features = []
        for name, session in sessions.items():
            start = time.perf_counter()
            (found,) = session.run(["resampled_tokens"], {"pixels": pixels})
            if number:  # the first one warms up
                seconds[name].append(time.perf_counter() - start)
            features.append(found)
        exact, rounded = features
        errors.append(float(np.linalg.norm(rounded - exact) / np.linalg.norm(exact)))
    return seconds, errors


def _session(shape: str, name: str, folder: Path, threads: int | None) -> ort.InferenceSession:
    """The vision graph of a random model."""
    say(f"Making the {name} graph")
    weights = random_weights(shape)
    home = folder / name
    home.mkdir()
    with Graph(home, VISION, precision(name)) as graph:
        VisionGraph(graph, weights.config, Walk(weights.tensors)).build()
    return open_session(home / VISION, CPU, threads)


def _pixels(shape: str, count: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    pictures = (random.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(count))
    return [to_pixels(load_image(p), config_of(shape).preprocessing)[None] for p in pictures]


if __name__ == "__main__":
    run(command)
