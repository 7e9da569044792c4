"""Typing a line: history, completion, several lines, and pasted text.

Contract: `LineEditor.read` returns what the person wrote, with its newlines; Ctrl-D on an empty
line is EOFError, Ctrl-C is KeyboardInterrupt on an empty line and elsewhere empties it. The
history is a convenience: that it cannot be kept ends nothing.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.application.current import get_app
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import Output, create_output

from lite.terminal.completion import LineCompleter
from lite.terminal.screen import is_dumb

# Lines kept free below the prompt for the menu of completions.
MENU_LINES = 4


class Editor(Protocol):
    """Where lines come from."""

    def read(self, prompt: str) -> str:
        """One line, or several that were written as one.

        Raises:
            EOFError: Ctrl-D.
            KeyboardInterrupt: Ctrl-C where nothing was written.
        """


def editor(history: Path | None) -> Editor:
    """The best that this terminal allows; `history` is the file that remembers lines, if any."""
    return PlainEditor() if is_dumb() else LineEditor(history)


class PlainEditor:
    """Lines as a terminal without escape codes edits them itself, without a history."""

    def read(self, prompt: str) -> str:
        click.echo(prompt, nl=False, err=not sys.stdout.isatty())
        line = input()
        while line.endswith("\\") and not line.endswith("\\\\"):
            line = f"{line[:-1]}\n{input()}"
        return line


class LineEditor:
    """Lines with editing, history and completion."""

    def __init__(
        self, history: Path | None = None, input: Input | None = None, output: Output | None = None
    ) -> None:
        """
        Args:
            history: file that remembers lines; None remembers them until the end of the program.
            input, output: instead of the terminal of this process.
        """
        self._session: PromptSession[str] = PromptSession(
            history=_history(history),
            completer=LineCompleter(),
            # While typing only the names of commands: paths would read the disk at each key.
            complete_while_typing=Condition(_writes_command),
            reserve_space_for_menu=MENU_LINES,
            key_bindings=_keys(),
            prompt_continuation="  ",
            enable_suspend=True,
            input=input,
            # Where stdout is piped, the line is edited on stderr.
            output=output or create_output(always_prefer_tty=True),
        )

    def read(self, prompt: str) -> str:
        while True:
            try:
                return self._session.prompt(FormattedText([("bold", prompt)]))
            except KeyboardInterrupt:
                if not self._session.default_buffer.text:
                    raise


def _writes_command() -> bool:
    text = get_app().current_buffer.document.text_before_cursor
    return text.startswith("/") and " " not in text and "/" not in text[1:]


def _keys() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("escape", "enter")
    @keys.add("escape", "c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("enter", filter=Condition(_goes_on))
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.delete_before_cursor()
        event.current_buffer.insert_text("\n")

    return keys


def _goes_on() -> bool:
    """Whether the line ends with one backslash, where the cursor is."""
    document = get_app().current_buffer.document
    before = document.text_before_cursor
    at_end = not document.text_after_cursor
    return at_end and before.endswith("\\") and not before.endswith("\\\\")


class _QuietHistory(FileHistory):
    """A history file whose loss on the way ends no chat."""

    def store_string(self, string: str) -> None:
        with suppress(OSError):
            # A terminal may send bytes that are no text; they must not end the chat here.
            super().store_string(string.encode(errors="replace").decode())


def _history(path: Path | None) -> History:
    if path is None:
        return InMemoryHistory()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.chmod(0o600)  # one that was there already, too
        with path.open("rb"):
            return _QuietHistory(str(path))
    except OSError:
        return InMemoryHistory()
