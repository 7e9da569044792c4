"""How an answer reaches its reader: as it comes, as JSON, styled or plain.

Contract: stdout carries answers only, and where it is no terminal they are plain text, byte for
byte; notes and statistics go to stderr.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any, cast

import click

from lite.chat.answer import StreamEvent, Timings
from lite.cli import printable, say
from lite.terminal.screen import ProgressLine, can_style


class Printer:
    """Prints answers.

    Attributes:
        progress: the line to report long work on.
        timings: what the last answer cost, as far as it came.
    """

    def __init__(self, stats: bool = False, as_json: bool = False, quiet: bool = False) -> None:
        """
        Args:
            stats: print times after each answer.
            as_json: print one JSON object for each answer, when it is complete.
            quiet: show no progress.
        """
        self.progress = ProgressLine(wanted=not (as_json or quiet))
        self.timings: Timings | None = None
        self._stats = stats
        self._as_json = as_json

    def print(self, pieces: Iterator[StreamEvent]) -> None:
        """Print one answer as it comes."""
        if self._as_json:
            answer = "".join(self._texts(pieces))
            print(json.dumps({"answer": answer, **self._costs()}))
        else:
            page = _Page()
            try:
                for text in self._texts(pieces):
                    page.write(text)
            finally:
                page.end()
            print(flush=True)
        if self._stats and self.timings:
            say(statistics(self.timings))

    def _texts(self, pieces: Iterator[StreamEvent]) -> Iterator[str]:
        # Ctrl-C while printing ends the answer here, not some time later.
        with closing(cast("Generator[StreamEvent]", pieces)):
            try:
                for piece in pieces:
                    self.timings = piece.timings
                    if piece.note:
                        self.progress.clear()
                        say(piece.note)
                    yield piece.text
            finally:
                self.progress.clear()

    def _costs(self) -> dict[str, Any]:
        return asdict(self.timings) if self.timings else {}


class _Page:
    """One answer on stdout."""

    def __init__(self) -> None:
        self._terminal = sys.stdout.isatty()
        self._markdown = None
        if can_style(sys.stdout):
            from lite.terminal.markdown import MarkdownStream

            self._markdown = MarkdownStream()

    def write(self, text: str) -> None:
        text = printable(text) if self._terminal else text
        if self._markdown:
            # click has Windows' consoles understand escape codes, or leaves them out.
            click.echo(self._markdown.feed(text), nl=False)
        else:
            print(text, end="", flush=True)

    def end(self) -> None:
        """Show what was held back as the possible start of a marker."""
        if self._markdown:
            click.echo(self._markdown.end(), nl=False)


def statistics(t: Timings) -> str:
    """What an answer cost, in one line."""
    return (
        f"image {t.image_seconds:.3f} s ({t.images_computed} computed)  "
        f"prefill {t.prefill_tokens} of {t.prompt_tokens} tokens in {t.prefill_seconds:.3f} s  "
        f"decode {t.new_tokens} tokens in {t.decode_seconds:.3f} s, "
        f"{t.tokens_per_second:.1f} tokens/s  ({t.finish})"
    )
