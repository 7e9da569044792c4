"""Speed and memory of chatting, beside llama.cpp and transformers: `lite-bench chat`.

Contract: each engine runs in a process of its own (`bench.chat_engines`) and is asked for one
repetition of one measure at a time, in turns, so that whatever else the machine does falls on all
of them alike. The first repetition warms up and is not counted. Bandwidth of reading memory is
measured between repetitions, with as many threads as the engines have. One 9B engine after the
other may be had by calling this twice: all that are named are in memory at once.

    vis         vision encoder and resampler for one image, seconds
    pp512       prompt of 512 tokens, tokens/s
    tg128       128 tokens one by one, tokens/s, and GB/s of weights read
    tg128 image the same in a conversation about an image
    tg128 new, tg128 repeating   an answer that repeats nothing and one that repeats itself, with
                prompt lookup (`lite.runtime.prompt_lookup`), to be compared with
    tg128 plain one token at a time without it, measured right before
    ttft N      first token of turn N of a conversation about an image, seconds
    depth D     one token after D others, seconds

Example: lite-bench chat --shape 9b --precision int4 -o bench/results/chat-9b.json
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from bench.chat_report import plot, table
from bench.gguf_llama import write_gguf
from bench.machine import gpu_read_bandwidth, read_bandwidth
from bench.random_weights import random_weights
from bench.report import about, spread, write_report
from bench.shapes import SHAPES
from lite.cli import run, say
from lite.errors import LiteError
from lite.runtime.device import CPU, DEVICES
from lite.userdirs import cache_dir

LIBRARIES = ("onnxruntime", "numpy", "torch", "transformers", "llama-cpp-python")
# llama.cpp's of as many bits.
GGUF_TYPES = {"int8": "Q8_0", "int4": "Q4_0"}
MEASURES = ("vis", "pp", "tg", "tg image", "prompt_lookup", "turns", "growth")


@dataclass
class EngineRun:
    """One engine with one model, and what was measured of it.

    Attributes:
        name: in tables.
        engine: one of `bench.chat_engines.ENGINES`.
        options: of the engine.
        facts: what the engine says of itself.
        load: seconds.
        seconds: of each repetition by measure.
        peak: bytes of the largest resident set.
    """

    name: str
    engine: str
    options: dict[str, Any]
    facts: dict[str, Any] = field(default_factory=dict)
    load: float = 0.0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak: int = 0


class EngineProcess:
    """The process of one run's engine."""

    def __init__(self, run: EngineRun) -> None:
        self.run = run
        options = json.dumps(run.options)
        line = [sys.executable, "-m", "bench.chat_engines", run.engine, options]
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def read(self) -> dict[str, Any]:
        """The next answer. Raises LiteError if the process ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._process.communicate()[1].strip().splitlines()
            last = said[-1] if said else f"exit code {self._process.returncode}"
            raise LiteError(f"{self.run.name} cannot be measured ({last}); leave it out.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, what: str, settings: dict[str, Any], counted: bool) -> None:
        """One repetition of a measure."""
        assert self._process.stdin is not None
        print(json.dumps({"what": what, **settings}), file=self._process.stdin, flush=True)
        answer = self.read()
        self.run.peak = answer.pop("peak_bytes")
        for name, seconds in answer.items():
            if counted:
                self.run.seconds.setdefault(name, []).append(seconds)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def started(run: EngineRun) -> Iterator[EngineProcess]:
    """A worker that has loaded its model."""
    worker = EngineProcess(run)
    try:
        loaded = worker.read()
        run.load, run.facts = loaded["load"], loaded["facts"]
        yield worker
    finally:
        worker.close()


@click.command(name="chat")
@click.option("-m", "--model", "models", multiple=True, metavar="BUNDLE", help="Bundles.")
@click.option("--shape", type=click.Choice(SHAPES), help="Random models of this size.")
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["int8", "int8-128", "int4", "int4-64", "int4-128", "fp16", "fp32"]),
    default=("int8", "int4"),
    show_default=True,
    help="Of the random models; after the dash, how many values share a scale.",
)
@click.option(
    "--device", type=click.Choice(DEVICES), default=CPU, show_default=True, help="Of our engine."
)
@click.option("--gguf", "ggufs", multiple=True, metavar="FILE", help="Run it with llama.cpp.")
@click.option("--peers/--no-peers", default=True, show_default=True, help="Those installed.")
@click.option(
    "--dtype", default="bfloat16", show_default=True, help="Of the transformers peer; none: -."
)
@click.option("--gpu-layers", default=0, show_default=True, help="Of llama.cpp; -1 is all.")
@click.option("--threads", type=click.IntRange(1), help="Of every engine.  [default: its own]")
@click.option("--repeat", type=click.IntRange(1), default=5, show_default=True)
@click.option("--prompt", default=512, show_default=True, help="Tokens of pp.")
@click.option("--answer", default=128, show_default=True, help="Tokens of tg.")
@click.option("--turns", default=8, show_default=True, help="Of the conversation.")
@click.option("--depth", "depths", multiple=True, type=int, default=(0, 256, 512, 1024, 2048))
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file, with a PNG.")
def command(
    models: tuple[str, ...],
    shape: str | None,
    precisions: tuple[str, ...],
    device: str,
    ggufs: tuple[str, ...],
    peers: bool,
    dtype: str,
    gpu_layers: int,
    threads: int | None,
    repeat: int,
    prompt: int,
    answer: int,
    turns: int,
    depths: tuple[int, ...],
    as_json: bool,
    output: Path | None,
) -> None:
    """Measure chatting, with peers on the same shapes in turns."""
    shape = shape or (None if models or ggufs else "tiny")
    own = {"threads": threads, "device": device}
    runs = [EngineRun(m, "lite", {"bundle": m, **own}) for m in models]
    llama = {"threads": threads, "gpu_layers": gpu_layers}
    runs += [EngineRun(f, "llama.cpp", {"file": f, **llama}) for f in ggufs]
    if shape:
        runs += _of_shape(shape, precisions, own)
        runs += _peers_of_shape(shape, precisions, dtype, llama) if peers else []
    settings = {
        "prompt": prompt,
        "answer": answer,
        "turns": turns,
        # A question with template and image, a further question, and an answer, in tokens.
        "first_question": 64,
        "question": 24,
        "reply": 32,
        "depths": sorted(depths),
        "steps": 8,
    }
    count = threads or os.cpu_count() or 1
    bandwidths = _measure(runs, settings, repeat, count)
    limit = max(bandwidths) if device == CPU else gpu_read_bandwidth()
    report = {
        **about(LIBRARIES),
        "shape": shape,
        "settings": settings,
        "repetitions": repeat,
        "read_gb_per_second": spread([b / 1e9 for b in bandwidths]) | {"threads": count},
        **({} if device == CPU else {"gpu_read_gb_per_second": round(limit / 1e9, 1)}),
        "engines": {c.name: _figures(c, settings, limit) for c in runs},
    }
    if output:
        write_report(report, output)
        plot(report, output.with_suffix(".png"))
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        table(report)


def _of_shape(shape: str, precisions: tuple[str, ...], own: dict[str, Any]) -> list[EngineRun]:
    """Random bundles of one shape, made at first use and kept in the cache folder."""
    from export.bundle import write_bundle
    from export.precision import precision

    kept, found = cache_dir("bench"), []
    # Attention on a GPU takes nothing but 16 bits.
    activations, mark = (32, "") if own["device"] == CPU else (16, "-fp16")
    for name in precisions:
        bundle = kept / f"{shape}-{name}{mark}"
        if not bundle.exists():
            say(f"Making {bundle}")
            bits, _, block = name.partition("-")
            changes = {"block": int(block)} if block else {}
            chosen = precision(bits, activations=activations, **changes)
            write_bundle(random_weights(shape), bundle, chosen, lambda opened: [])
        found.append(EngineRun(f"lite {name}", "lite", {"bundle": str(bundle), **own}))
    return found


def _peers_of_shape(
    shape: str, precisions: tuple[str, ...], dtype: str, llama: dict[str, Any]
) -> list[EngineRun]:
    """The peers that are installed, on random models of one shape, kept likewise."""
    kept: Path = cache_dir("bench")
    found: list[EngineRun] = []
    if find_spec("llama_cpp") and find_spec("gguf"):
        bits = {name.partition("-")[0] for name in precisions}
        for kind in [there for ours, there in GGUF_TYPES.items() if ours in bits]:
            file = kept / f"{shape}-{kind}.gguf"
            if not file.exists():
                say(f"Making {file}")
                write_gguf(shape, kind, file)
            found.append(EngineRun(f"llama.cpp {kind}", "llama.cpp", {"file": str(file), **llama}))
    if dtype != "-":
        options = {"shape": shape, "dtype": dtype, "threads": llama["threads"]}
        found.append(EngineRun(f"transformers {dtype}", "transformers", options))
    return found


def _measure(
    runs: list[EngineRun], settings: dict[str, Any], repeat: int, threads: int
) -> list[float]:
    """Fill the runs; returns bytes a second read from memory, of each repetition."""
    bandwidths = []
    with ExitStack() as stack:
        workers = []
        for run in runs:
            say(f"Loading {run.name}")
            workers.append(stack.enter_context(started(run)))
        for number in range(repeat + 1):
            say(f"Repetition {number} of {repeat}" if number else "Warming up")
            for what in MEASURES:
                # Each goes first as often as the others do.
                turn = number % len(workers)
                for worker in (*workers[turn:], *workers[:turn]):
                    worker.ask(what, settings, counted=number > 0)
            bandwidths.append(read_bandwidth(threads))
    return bandwidths


def _figures(c: EngineRun, settings: dict[str, Any], bandwidth: float) -> dict[str, Any]:
    """What the report says of one run."""
    figures: dict[str, Any] = {
        "engine": c.facts,
        "load_seconds": round(c.load, 3),
        "peak_rss_gb": round(c.peak / 1e9, 3),
    }
    counts = {"pp": settings["prompt"]}
    counts |= {name: settings["answer"] for name in c.seconds if name.startswith("tg")}
    for name, seconds in c.seconds.items():
        if name not in counts:
            figures[name] = {"seconds": spread(seconds)}
            continue
        rates = [counts[name] / s for s in seconds]
        title = name.replace(name[:2], f"{name[:2]}{counts[name]}", 1)
        figures[title] = {"tokens_per_second": spread(rates)}
        if name in ("tg", "tg image"):
            read = c.facts.get("weight_bytes_image" if name == "tg image" else "weight_bytes")
            figures[title] |= _read(read, statistics.mean(rates), bandwidth)
    return figures


def _read(bytes_per_token: int | None, rate: float, bandwidth: float) -> dict[str, float]:
    """GB/s of weights, and their share of what the machine can read."""
    if not bytes_per_token:
        return {}
    speed = bytes_per_token * rate
    return {"gb_per_second": round(speed / 1e9, 2), "share": round(speed / bandwidth, 3)}


if __name__ == "__main__":
    run(command)
