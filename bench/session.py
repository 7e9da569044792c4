"""From opening a saved session to the first token of its next turn, with and without KV cache.

Contract: has one conversation with an image until it has about as many tokens as wanted, saves it
both ways, then opens the two files in turns, each time in a process of its own that has loaded the
bundle but run nothing, as after a restart. Prints seconds from `Model.open` to the first token,
opening the decoder graph included, how many tokens were read, and the sizes of the files.

Example: python -m bench.session -m bundle tests/fixtures/mmgpt-tiny/images/0.png
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

import lite
from bench.machine import RUNTIME
from bench.report import about, extremes
from lite.cli import run

QUESTION = "What is in the image, and what else can you tell about it?"
NEXT = """
import json, sys, time, lite
model = lite.load(sys.argv[1])
start = time.perf_counter()
chat = model.open(sys.argv[2])
opened = time.perf_counter()
pieces = chat.ask("What colour is it?", max_tokens=1)
piece = next(p for p in pieces if p.token is not None)
end = time.perf_counter()
print(json.dumps({"open": opened - start, "first_token": end - start, "token": piece.token,
                  "tokens_read": piece.timings.prefill_tokens}))
"""


def conversation(model: lite.Model, image: str, tokens: int) -> lite.Chat:
    """A conversation of about so many tokens."""
    chat = model.chat()
    shown: str | None = image
    while len(chat.prompt()[0]) < tokens:
        for _ in chat.ask(QUESTION, shown, max_tokens=40):
            pass
        shown = None
    return chat


def reopened(model: str, session: Path) -> dict[str, Any]:
    """Open a session in a new process and ask once more."""
    command = [sys.executable, "-c", NEXT, model, str(session)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise click.ClickException(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout)


@click.command(name="session")
@click.argument("image")
@click.option("-m", "--model", required=True, help="Bundle.")
@click.option("--tokens", default=600, show_default=True, help="Length of the conversation.")
@click.option("--repeat", default=10, show_default=True, help="Openings of each file.")
def command(image: str, model: str, tokens: int, repeat: int) -> None:
    """Measure the next turn of a session that was closed."""
    made_by = about(RUNTIME)
    with tempfile.TemporaryDirectory() as folder:
        chat = conversation(lite.load(model), image, tokens)
        files = {"with kv": Path(folder) / "kv", "without kv": Path(folder) / "plain"}
        for name, path in files.items():
            chat.save(path, kv=name == "with kv")
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
        for _ in range(repeat):
            for name, path in files.items():
                runs[name].append(reopened(model, path))
        if len({run["token"] for both in runs.values() for run in both}) > 1:
            raise click.ClickException("the two files gave different answers.")
        report = {
            **made_by,
            "parameters": chat.engine.bundle.manifest.sizes.parameters,
            "conversation_tokens": len(chat.prompt()[0]),
        }
        for name, path in files.items():
            report[name] = {
                "file_bytes": path.stat().st_size,
                "tokens_read": runs[name][0]["tokens_read"],
                "open_seconds": extremes([run["open"] for run in runs[name]], 4),
                "first_token_seconds": extremes([run["first_token"] for run in runs[name]], 4),
            }
    both = [statistics.median(run["first_token"] for run in runs[name]) for name in files]
    report["ratio"] = round(both[0] / both[1], 3)
    click.echo(json.dumps(report, indent=1))


if __name__ == "__main__":
    run(command)
