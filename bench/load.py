"""Host memory and time to read a model's base into 4 bits on the CPU.

Contract: no checkpoint is read: the weights are random ones that are made tensor by tensor when the
loader asks for them (`bench.random_weights`), stored as published ones are (float16). The time that
this takes is given apart. Peak memory is the process's largest resident set, Python, torch and
everything else included, by getrusage(2).

Example: python -m bench.load --shape 9b
"""

from __future__ import annotations

import dataclasses
import json
import time

import click
import torch
from rich.progress import Progress
from torch import Tensor

from bench.machine import peak_bytes
from bench.random_weights import RandomTensors, random_weights
from bench.report import about
from bench.shapes import SHAPES
from lite.cli import run
from qlora.model.nf4 import Linear4bit
from qlora.model.quantized import load_quantized


class TimedTensors(RandomTensors):
    """The same tensors, with a count of the seconds that making them took."""

    seconds = 0.0

    def __getitem__(self, name: str) -> Tensor:
        start = time.perf_counter()
        tensor = super().__getitem__(name)
        self.seconds += time.perf_counter() - start
        return tensor


def held_bytes(model: torch.nn.Module) -> tuple[int, int]:
    """Bytes of the 4-bit matrices with their constants, and of everything else."""
    small, rest = 0, 0
    for module in model.modules():
        if isinstance(module, Linear4bit):
            state = module.weight.quant_state
            parts = [module.weight, state.absmax, state.code]
            parts += [state.offset, state.state2.absmax, state.state2.code] if state.nested else []
            small += sum(part.nbytes for part in parts)
        else:
            rest += sum(part.nbytes for part in module.parameters(recurse=False))
    return small, rest


@click.command(name="load")
@click.option("--shape", type=click.Choice(SHAPES), default="9b", show_default=True)
@click.option("--base", type=click.Choice(["nf4", "none"]), default="nf4", show_default=True)
def command(shape: str, base: str) -> None:
    """Measure loading into 4 bits."""
    weights = random_weights(shape)
    timed = TimedTensors({n: weights.base.shape(n) for n in weights.base}, 0, torch.float16)
    weights = dataclasses.replace(weights, base=timed)
    before = peak_bytes()
    start = time.perf_counter()
    with Progress(transient=True) as bar:
        task = bar.add_task("Loading", total=weights.parameters)
        model = load_quantized(
            weights,
            compute=torch.bfloat16,
            base=base,  # type: ignore[arg-type]
            progress=lambda done: bar.update(task, completed=done),
        )
    seconds = time.perf_counter() - start
    small, rest = held_bytes(model)
    report = {
        **about(("torch", "bitsandbytes", "transformers")),
        "shape": shape,
        "parameters": weights.parameters,
        "stored_as": "float16, random, made on demand",
        "base": base,
        "compute": "bfloat16",
        "4bit_gb": round(small / 1e9, 3),
        "rest_gb": round(rest / 1e9, 3),
        "peak_rss_before_gb": round(before / 1e9, 3),
        "peak_rss_gb": round(peak_bytes() / 1e9, 3),
        "seconds": round(seconds - timed.seconds, 1),
        "seconds_making_weights": round(timed.seconds, 1),
    }
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    run(command)
