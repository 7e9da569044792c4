"""The first byte of a conversation's turns over HTTP: the first, with an image, and the second.

Contract: starts `lite-serve` and talks to it as a client would, streaming. Each repetition is a new
conversation about a picture that the server has not seen; beside its second turn, in turns, the
same second turn is sent to a server that knows nothing of the first (`cold`). First byte: from
sending the request to the first event that carries text.

Example: python -m bench.serve -m tiny-bundle
"""

from __future__ import annotations

import base64
import http.client
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import click
import numpy as np
from PIL import Image

from bench.machine import RUNTIME
from bench.report import about, extremes
from lite.cli import run

SIDE = 640


@contextmanager
def serving(model: str) -> Iterator[int]:
    """The port of a `lite-serve` whose caches are empty."""
    line = [sys.executable, "-m", "lite.commands.serve", "-m", model, "--port", "0"]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "MMGPT_LITE_CACHE": cache}
        with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stderr is not None
            while "Serving on" not in (said := process.stderr.readline()):
                if not said:
                    raise click.ClickException("lite-serve ended; run it by hand to see why.")
            yield int(said.split()[2].rpartition(":")[2])
            process.terminate()


def ask(port: int, messages: list[Any], max_tokens: int) -> tuple[float, str, dict[str, Any]]:
    """Seconds to the first text, the answer, and the server's own timings."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    body = json.dumps({"messages": messages, "max_tokens": max_tokens, "stream": True})
    start = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    first, text = 0.0, ""
    timings: dict[str, Any] = {}
    for line in response:
        if not line.startswith(b"data: {"):
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise click.ClickException(chunk["error"]["message"])
        delta = chunk["choices"][0]["delta"].get("content", "")
        if delta and not text:
            first = time.perf_counter() - start
        text += delta
        timings = chunk.get("timings", timings)
    connection.close()
    if response.status != http.client.OK or not text:
        raise click.ClickException(f"no answer (status {response.status}); try another --question.")
    return first, text, timings


def photo(seed: int) -> str:
    """A picture of noise, as a data: URL."""
    pixels = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


@click.command(name="serve")
@click.option("-m", "--model", required=True, help="Bundle.")
@click.option("--repeat", default=20, show_default=True, help="Conversations.")
@click.option("--max-tokens", default=32, show_default=True, help="Longest answer.")
@click.option("--question", default="Tell me about it.", show_default=True, help="Second turn.")
def command(model: str, repeat: int, max_tokens: int, question: str) -> None:
    """Measure the first byte of turn 1 and turn 2 through lite-serve."""
    times: dict[str, list[float]] = {"turn 1, image": [], "turn 2, cached": [], "turn 2, cold": []}
    prefilled: dict[str, list[int]] = {name: [] for name in times}
    made_by = about(RUNTIME)
    with ExitStack() as stack:
        warm, cold = (stack.enter_context(serving(model)) for _ in range(2))
        for seed in range(repeat + 1):
            image = {"type": "image_url", "image_url": {"url": photo(seed)}}
            text = {"type": "text", "text": "What is in the image?"}
            messages: list[Any] = [{"role": "user", "content": [image, text]}]
            first = ask(warm, messages, max_tokens)
            messages.append({"role": "assistant", "content": first[1]})
            messages.append({"role": "user", "content": question})
            second, alone = ask(warm, messages, max_tokens), ask(cold, messages, max_tokens)
            if seed == 0:  # opens the vision graph
                continue
            for name, (seconds, _, timings) in zip(times, (first, second, alone), strict=True):
                times[name].append(seconds)
                prefilled[name].append(timings["prefill_tokens"])
    report = {
        **made_by,
        "first_byte_seconds": {
            name: extremes(values, 4) | {"prefill_tokens": statistics.median(prefilled[name])}
            for name, values in times.items()
        },
        "ratio": round(
            statistics.median(times["turn 1, image"]) / statistics.median(times["turn 2, cached"]),
            2,
        ),
    }
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    run(command)
