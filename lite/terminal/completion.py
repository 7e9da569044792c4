"""What the Tab key completes: slash commands, their arguments, and paths.

Contract: questions are left alone; a completed path is written so that `lite.terminal.attachments`
reads it back as one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document

from lite.terminal.attachments import SUFFIXES
from lite.terminal.slash_commands import COMMANDS, SETTINGS

WINDOWS = os.name == "nt"
# The word at the end of a line, an open quote included.
LAST_WORD = re.compile(r"""(?:"[^"]*|'[^']*|(?:\\.|[^\s"'\\])*)$""")
LAST_WINDOWS_WORD = re.compile(r"""(?:"[^"]*|'[^']*|[^\s"']*)$""")
SPECIAL = re.compile(r"""([\s\\"'])""")


class LineCompleter(Completer):
    """Completes what begins with a slash."""

    def get_completions(self, document: Document, event: CompleteEvent) -> Iterator[Completion]:
        line = document.text_before_cursor
        if not line.startswith("/") or "\n" in line:
            return
        name, space, rest = line.partition(" ")
        if not space:
            known = {key: each for key, each in COMMANDS.items() if key.startswith(name)}
            for key, each in known.items():
                yield Completion(key, start_position=-len(name), display_meta=each.help)
            if not known:
                yield from _paths(line, images=True)
        elif (command := COMMANDS.get(name)) and command.completes == "settings":
            if " " not in rest:
                for setting in SETTINGS:
                    if setting.startswith(rest):
                        yield Completion(setting, start_position=-len(rest))
        elif command and command.completes:
            yield from _paths(rest, images=command.completes == "images")


def _paths(text: str, images: bool) -> Iterator[Completion]:
    """Files that the last word of `text` may become: folders, and all files or images only."""
    found = (LAST_WINDOWS_WORD if WINDOWS else LAST_WORD).search(text)
    word = found[0] if found else ""
    quote = word[0] if word.startswith(("'", '"')) else ""
    typed = word[len(quote) :] if quote or WINDOWS else re.sub(r"\\(.)", r"\1", word)
    # The folder as it was typed, its separator included.
    cut = max(typed.rfind("/"), typed.rfind("\\") if WINDOWS else -1) + 1
    folder, start = typed[:cut], typed[cut:]
    for entry in _entries(folder):
        hidden = entry.name.startswith(".") and not start
        if hidden or not entry.name.startswith(start):
            continue
        if entry.is_dir():
            path = f"{folder}{entry.name}/"
        elif not images or entry.suffix.lower() in SUFFIXES:
            path = folder + entry.name
        else:
            continue
        yield Completion(_written(path, quote), start_position=-len(word), display=path[cut:])


def _entries(folder: str) -> list[Path]:
    try:
        return sorted(Path(folder or ".").expanduser().iterdir())
    except (OSError, ValueError, RuntimeError):  # nothing there, or nobody of that name
        return []


def _written(path: str, quote: str) -> str:
    """A path as it must stand in a line; the quote of a folder stays open for what is in it."""
    if not quote and not WINDOWS:
        return SPECIAL.sub(r"\\\1", path)
    if WINDOWS and not quote and " " in path:
        quote = '"'
    return f"{quote}{path}{quote if not path.endswith('/') else ''}"
