"""What a run writes down: `log.jsonl`, TensorBoard's curves, and the progress bar.

Contract: `log.jsonl` has one line for each optimizer step and each evaluation, equal for an
uninterrupted run and for one that was killed and resumed: resuming cuts it back to the checkpoint.
Only the first process of several writes.
"""

from __future__ import annotations

import json
import sys
import time
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
        from torch.utils.tensorboard import SummaryWriter

        _cut(self._folder / LOG, self._start)
        self._file = (self._folder / LOG).open("a", encoding="utf-8")
        purge = self._start + 1 if self._start else None
        self._board = SummaryWriter(str(self._folder / "tensorboard"), purge_step=purge)
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
            self._board.close()
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
        for name, value in values.items():
            self._board.add_scalar(f"train/{name}", value, step)
        self._board.add_scalar("speed/tokens_per_second", speed, step)
        self._board.add_scalar("memory/peak_gb", memory / 1e9, step)
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
        for name, value in losses.items():
            self._board.add_scalar(f"evaluation/{name}", value, step)
        for number, answer in enumerate(answers):
            text = "\n\n".join(f"**{key}** {value}" for key, value in answer.items())
            self._board.add_text(f"answers/{number}", text, step)
        figures = ", ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self.say(f"Evaluation after {step} steps: {figures}.")

    def say(self, text: str) -> None:
        """A line for the person, above the progress bar."""
        if self._active:
            self._bar.console.print(text, highlight=False, markup=False)

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record, ensure_ascii=False) + "\n")
        self._file.flush()


def read_log(path: Path) -> list[dict[str, Any]]:
    """The records of a log; a last line that a crash cut off is not one of them."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def _cut(path: Path, step: int) -> None:
    """Drop what was logged after `step` finished steps."""
    if path.exists():
        kept = [r for r in read_log(path) if r["step"] <= step]
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in kept]
        write_text_atomically(path, "".join(lines))
