"""From the start of the process to the first piece of an answer.

Contract: starts `lite-chat` as a person would, again and again, and beside it, in turns, the least
that any ONNX Runtime program must do (start Python and import onnxruntime); prints both with their
ratio. The visual cache is empty at each start, so the image is really encoded.

Example: python -m bench.startup -m tiny-bundle tests/fixtures/mmgpt-tiny/images/0.png
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import click

from bench.machine import RUNTIME
from bench.report import about, extremes
from lite.cli import run

BARE = [sys.executable, "-c", "import onnxruntime; print('x', flush=True)"]


def first_byte(command: list[str], environment: dict[str, str]) -> float:
    """Seconds until a command writes to stdout."""
    start = time.perf_counter()
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        assert process.stdout is not None
        byte = process.stdout.read(1)
        seconds = time.perf_counter() - start
        process.stdout.read()
    if process.returncode or not byte:
        raise click.ClickException(f"{' '.join(command)} failed; run it by hand to see why.")
    return seconds


@click.command(name="startup")
@click.argument("image")
@click.option("-m", "--model", required=True, help="Bundle.")
@click.option("--repeat", default=10, show_default=True, help="Starts of each.")
def command(image: str, model: str, repeat: int) -> None:
    """Measure the time to the first token of lite-chat."""
    chat = [sys.executable, "-m", "lite.commands.chat", image, "-m", model, "-p", "What is this?"]
    made_by = about(RUNTIME)
    times: dict[str, list[float]] = {"lite-chat": [], "import onnxruntime": []}
    for _ in range(repeat):
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "MMGPT_LITE_CACHE": cache}
            times["lite-chat"].append(first_byte(chat, environment))
            times["import onnxruntime"].append(first_byte(BARE, environment))
    report = {
        **made_by,
        "seconds": {name: extremes(values, 3) for name, values in times.items()},
        "ratio": round(
            statistics.median(times["lite-chat"]) / statistics.median(times["import onnxruntime"]),
            2,
        ),
    }
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    run(command)
