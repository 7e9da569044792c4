"""A training step of this package beside that of a plain transformers + peft + bitsandbytes loop.

Contract: both train the same random model on the same rows (`bench.train_loops` says what differs),
in turns, each time in a process of its own, so that neither's memory is in the other's peak. Gives
tokens/s, peak memory, their ratio, the share of the roofline (operations of `qlora.plan.counts`
over the device's figures), and what the plan of memory had said. Checks that the losses agree.

Memory is the peak of CUDA's allocator. On a CPU it is the peak of the resident set in runs of their
own, which are not timed: there malloc gives freed blocks back at once (`FLAT_MALLOC`), because what
it keeps otherwise differs from run to run by more than the two loops do.

Example: python -m bench.train --shape 9b
         python -m bench.train --shape 1b --length 512 --compute float32
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import torch

from bench.report import about, extremes, new_figure, write_report
from bench.shapes import SHAPES, config_of
from bench.train_loops import OURS, PLAIN, Task, adapter_settings
from lite.cli import run, say
from lite.errors import LiteError
from qlora.plan.counts import Counts
from qlora.plan.devices import Device, this_machine
from qlora.plan.memory import CUDA_OVERHEAD
from qlora.plan.plan import Plan, make_plan
from qlora.plan.settings import Settings

LIBRARIES = ("torch", "transformers", "peft", "bitsandbytes")
# For glibc: a block of 64 KiB or more is a mapping of its own.
FLAT_MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536"}
# Largest relative difference of the losses of one step: rounding, in the compute type.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


@click.command(name="train")
@click.option("--shape", type=click.Choice(SHAPES), help="Size; 9b with a GPU, else tiny.")
@click.option(
    "--length", "lengths", type=click.IntRange(16), multiple=True, help="Tokens in a row."
)
@click.option("--repeat", type=click.IntRange(1), default=3, show_default=True, help="Processes.")
@click.option("--steps", type=click.IntRange(1), default=5, show_default=True, help="In each.")
@click.option("--images/--no-images", default=True, show_default=True, help="With gated blocks.")
@click.option(
    "--compute",
    type=click.Choice([*TOLERANCE]),
    default="bfloat16",
    show_default=True,
    help="Type of activations.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file, with a PNG.")
def command(
    shape: str | None,
    lengths: tuple[int, ...],
    repeat: int,
    steps: int,
    images: bool,
    compute: str,
    output: Path | None,
) -> None:
    """Measure training steps; without --length, of 512 and 2048 tokens."""
    on_gpu = torch.cuda.is_available()
    shape = shape or ("9b" if on_gpu else "tiny")
    lengths = tuple(sorted(lengths)) or (512, 2048)
    device = this_machine()
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], PLAIN: []}
    where = "cuda:0" if on_gpu else "cpu"
    tasks = {n: Task(n, shape, lengths, steps, images, compute, where) for n in (OURS, PLAIN)}
    for number in range(repeat):
        for loop in (OURS, PLAIN) if number % 2 == 0 else (PLAIN, OURS):
            say(f"{loop}, run {number + 1} of {repeat}")
            runs[loop].append(_in_a_process(tasks[loop]))
    peaks = {loop: runs[loop][0] for loop in runs}
    if not on_gpu:
        say("Memory of both")
        peaks = {n: _in_a_process(replace(t, steps=1), FLAT_MALLOC) for n, t in tasks.items()}
    report = {
        **about(LIBRARIES),
        "device": asdict(device),
        "shape": shape,
        "images": images,
        "compute": compute,
        "trained_parameters": runs[OURS][0]["trained"],
        "lengths": {
            str(length): _of_length(
                runs, peaks, length, _plan(shape, length, compute, device), images
            )
            for length in lengths
        },
    }
    click.echo(json.dumps(report, indent=1))
    name = "-".join(device.name.lower().replace(",", "").split())
    output = output or Path("bench/results") / f"train-{shape}-{name}.json"
    write_report(report, output)
    _plot(report, output.with_suffix(".png"))


def _in_a_process(task: Task, environment: Mapping[str, str] = {}) -> dict[str, Any]:
    line = [sys.executable, "-m", "bench.train_loops", json.dumps(asdict(task))]
    done = subprocess.run(line, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise LiteError(f"The step of {task.loop} failed ({last}); try a smaller --shape.")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _plan(shape: str, length: int, compute: str, device: Device) -> Plan:
    adapter = adapter_settings()
    settings = Settings(
        targets=tuple(adapter["targets"]),
        rank=adapter["rank"],
        compute=compute,
        max_tokens=length,
    )
    return make_plan(Counts(config_of(shape)), settings, device)


def _of_length(
    runs: dict[str, list[dict[str, Any]]],
    peaks: dict[str, dict[str, Any]],
    length: int,
    plan: Plan,
    images: bool,
) -> dict[str, Any]:
    """The report on rows of one length; a loop that ran out of memory has no figures."""
    found: dict[str, Any] = {}
    operations = plan.counts.training_per_token(plan.adapters, images=images, length=length)
    speed = plan.device.bf16 if plan.settings.width == 2 else plan.device.fp32
    limit = speed * 1e12 / operations
    for loop, measured in runs.items():
        parts = [run[str(length)] for run in measured]
        if any("out_of_memory" in part for part in parts):
            found[loop] = {"out_of_memory": True}
            continue
        rates = [length / second for part in parts for second in part["seconds"]]
        found[loop] = {
            "tokens_per_second": extremes(rates, 2),
            "share_of_roofline": round(statistics.median(rates) / limit, 4),
            "peak_bytes": peaks[loop][str(length)]["peak"],
            "losses": parts[0]["losses"],
        }
    found["roofline_tokens_per_second"] = round(limit, 2)
    # The allocator knows nothing of the CUDA context; a process on the CPU holds everything.
    outside = CUDA_OVERHEAD if plan.device.cuda else 0
    found["planned_peak_bytes"] = plan.peak - outside
    if all("losses" in found[loop] for loop in runs):
        found |= _compared(found[OURS], found[PLAIN], plan.settings.compute)
    return found


def _compared(ours: dict[str, Any], plain: dict[str, Any], compute: str) -> dict[str, Any]:
    """Ours over the plain loop, and whether they computed the same."""
    pairs = zip(ours["losses"], plain["losses"], strict=True)
    difference = max(abs(a - b) / abs(b) for a, b in pairs)
    speed = [loop["tokens_per_second"]["median"] for loop in (ours, plain)]
    return {
        "speed_ratio": round(speed[0] / speed[1], 3),
        "memory_ratio": round(ours["peak_bytes"] / plain["peak_bytes"], 3),
        "largest_loss_difference": difference,
        "same_losses": difference <= TOLERANCE[compute],
    }


def _plot(report: dict[str, Any], path: Path) -> None:
    """Speed and memory as bars, where matplotlib is installed."""
    figure = new_figure(7, 3)
    if figure is None:
        return
    speed, memory = figure.subplots(1, 2)
    lengths = list(report["lengths"])
    for offset, loop in enumerate((OURS, PLAIN)):
        found = [report["lengths"][length][loop] for length in lengths]
        at = [i + 0.4 * offset for i in range(len(lengths))]
        rates = [part.get("tokens_per_second", {}).get("median", 0.0) for part in found]
        speed.bar(at, rates, 0.38, label=loop)
        memory.bar(at, [part.get("peak_bytes", 0) / 1e9 for part in found], 0.38)
    for axes, title in ((speed, "tokens/s"), (memory, "peak memory, GB")):
        axes.set_title(title, fontsize=9)
        axes.set_xticks([i + 0.2 for i in range(len(lengths))], [f"{n} tokens" for n in lengths])
    figure.suptitle(f"{report['shape']} on {report['device']['name']}", fontsize=10)
    figure.legend(*speed.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run(command)
