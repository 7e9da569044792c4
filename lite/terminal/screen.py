"""What the terminal can show, and a line of progress on it.

Contract: nothing here writes an escape code.
"""

from __future__ import annotations

import os
import sys
from typing import TextIO

import click


def can_style(stream: TextIO) -> bool:
    """Whether escape codes may go to a stream: a terminal that knows them, and no wish against.

    https://no-color.org and the terminal type `dumb`, as other programs read them.
    """
    return stream.isatty() and not os.environ.get("NO_COLOR") and not is_dumb()


def is_dumb() -> bool:
    """Whether the terminal says that it knows no escape codes."""
    return os.environ.get("TERM", "").lower() in ("dumb", "unknown")


class ProgressLine:
    """One line on stderr that is overwritten, for people only."""

    def __init__(self, wanted: bool = True) -> None:
        self._wanted = wanted and sys.stderr.isatty()
        self._shown = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report as `Chat.ask` does: ("image" or "prompt", done, total)."""
        if what == "image":
            self._show(f"looking at image {done + 1} of {total}...")
        else:
            self._show(f"reading {done} of {total} tokens..." if done < total else "")

    def clear(self) -> None:
        """Quit an empty line, with the cursor at its start."""
        self._show("")

    def _show(self, line: str) -> None:
        if self._wanted and line != self._shown:
            # Spaces instead of erase-line: even a dumb terminal knows them.
            blank = f"\r{' ' * len(self._shown)}\r" if self._shown else ""
            click.echo(blank + line, nl=False, err=True)
            self._shown = line
