"""What a run writes down: `log.jsonl`, TensorBoard's curves, and the progress bar.

Contract: `log.jsonl` has one line for each optimizer step and each evaluation, equal for an
uninterrupted run and for one that was killed and resumed: resuming cuts it back to the checkpoint.
A full disk ends no run: lines wait until they can be written, TensorBoard's curves end. Only the
first process of several writes.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from qlora.training.checkpoints import write_text_atomically

LOG = "log.jsonl"


class RunLog:
    """The records of one run, as a context manager."""

    def __init__(self, folder: Path, start: int, total: int, active: bool) -> None:
        """
        Args:
            folder: of the run.
            start: finished steps; what was logged after them is cut off.
            total: steps of the whole run.
            active: False for all processes but the first.
        """
        self._folder, self._start, self._total, self._active = folder, start, total, active
        self._began = time.perf_counter()
        self._tokens = 0

    def __enter__(self) -> RunLog:
        if not self._active:
            return self
        self._evaluated = _cut(self._folder / LOG, self._start)
        self._file = (self._folder / LOG).open("ab", buffering=0)
        self._waiting = b""
        self._tensorboard = _TensorBoard(self._folder / "tensorboard", self._start + 1)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task(
            "Training", total=self._total, completed=self._start, figures=""
        )
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._active:
            self._bar.stop()
            self._tensorboard.close()
            self._file.close()

    def step(self, step: int, values: dict[str, Any], tokens: int, memory: int) -> None:
        """Note a finished optimizer step.

        Args:
            step: its number, from 1.
            values: losses, learning rate and gradient norm; they must not depend on the clock.
            tokens: tokens that went through the model in it.
            memory: peak memory so far, in bytes.
        """
        if not self._active:
            return
        self._tokens += tokens
        speed = self._tokens / (time.perf_counter() - self._began)
        self._write({"step": step, **values, "tokens": tokens})
        curves = {f"train/{name}": value for name, value in values.items()}
        curves |= {"speed/tokens_per_second": speed, "memory/peak_gb": memory / 1e9}
        self._tensorboard.add(step, curves)
        figures = f"loss {values['loss']:.3f}  {speed:,.0f} tokens/s  {memory / 1e9:.1f} GB"
        self._bar.update(self._task, completed=step, figures=figures)
        if not sys.stderr.isatty() and (step % max(1, self._total // 20) == 0 or step == 1):
            print(f"step {step} of {self._total}: {figures}", file=sys.stderr, flush=True)

    def evaluation(
        self, step: int, losses: dict[str, float], answers: list[dict[str, str]]
    ) -> None:
        """Note an evaluation after `step` steps."""
        if not self._active:
            return
        self._write({"step": step, "evaluation": losses, "answers": answers})
        texts = {
            f"answers/{number}": "\n\n".join(f"**{key}** {value}" for key, value in answer.items())
            for number, answer in enumerate(answers)
        }
        self._tensorboard.add(step, {f"evaluation/{name}": v for name, v in losses.items()}, texts)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.say(f"Evaluation after {step} steps: {figures}.")

    def say(self, text: str) -> None:
        """A line for the person, above the progress bar."""
        if self._active:
            self._bar.console.print(text, highlight=False, markup=False)

    def evaluated(self, step: int) -> bool:
        """Whether the log has the evaluation after `step` steps, where this process keeps it."""
        return not self._active or step in self._evaluated

    def flush(self) -> None:
        """Write what waits for room on the disk. Raises OSError where there is none yet."""
        while self._active and self._waiting:
            self._waiting = self._waiting[self._file.write(self._waiting) :]

    def _write(self, record: dict[str, Any]) -> None:
        self._waiting += _line(record)
        with suppress(OSError):
            self.flush()


class _TensorBoard:
    """TensorBoard's curves, until the disk is full."""

    def __init__(self, folder: Path, start: int) -> None:
        """
        Args:
            folder: of the events.
            start: first step of this process; later ones that are there already are superseded.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._writer: SummaryWriter | None = SummaryWriter(str(folder), purge_step=start)

    def add(self, step: int, curves: Mapping[str, float], texts: Mapping[str, str] = {}) -> None:
        try:
            for name, value in curves.items():
                if self._writer is not None:
                    self._writer.add_scalar(name, value, step)
            for name, text in texts.items():
                if self._writer is not None:
                    # A file's name may hold half a character, which TensorBoard cannot write.
                    valid = text.encode("utf-8", "replace").decode()
                    self._writer.add_text(name, valid, step)
        except OSError:
            self._writer = None

    def close(self) -> None:
        with suppress(OSError):
            if self._writer is not None:
                self._writer.close()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that a crash cut off is not one of them."""
    if not path.exists():
        return []
    records = []
    # Not `splitlines`, which also breaks lines where JSON does not, as at U+2028.
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _cut(path: Path, step: int) -> set[int]:
    """Drop what was logged after `step` finished steps; returns the steps that were evaluated."""
    if not path.exists():
        return set()
    kept = [record for record in read_log(path) if record["step"] <= step]
    write_text_atomically(path, b"".join(map(_line, kept)).decode())
    return {record["step"] for record in kept if "evaluation" in record}


def _line(record: dict[str, Any]) -> bytes:
    # Half a character, as a file's name may hold, becomes an escape that JSON knows.
    return f"{json.dumps(record, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")
