"""Typing: several lines, and history across runs."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lite.terminal.editor import LineEditor, PlainEditor
from tests.lite.terminal.terminals import CTRL_C, CTRL_D, PASTE, PASTED

ALT_ENTER, UP, BACKSPACE = "\x1b\r", "\x1b[A", "\x7f"


@pytest.fixture
def keys() -> Iterator[Any]:
    """A keyboard: `send_text` types."""
    with create_pipe_input() as keyboard:
        yield keyboard


def read(keys: Any, typed: str, history: Path | None = None) -> str:
    """The next line of a new editor."""
    keys.send_text(typed)
    return LineEditor(history, keys, DummyOutput()).read("> ")


def test_a_line_is_what_was_typed(keys: Any) -> None:
    assert read(keys, "what is thos?" + BACKSPACE * 3 + "is?\r") == "what is this?"
    assert read(keys, "größe 🐕\r") == "größe 🐕"
    assert read(keys, "\r") == ""


def test_a_question_may_have_several_lines(keys: Any) -> None:
    assert read(keys, f"a{ALT_ENTER}b\r") == "a\nb"
    assert read(keys, "a\\\rb\\\rc\r") == "a\nb\nc"
    assert read(keys, "a\\\\\r") == "a\\\\"


def test_pasted_newlines_send_nothing(keys: Any) -> None:
    assert read(keys, f"see: {PASTE}one\r\ntwo\nthree{PASTED} end\r") == "see: one\ntwo\nthree end"


def test_ctrl_c_empties_the_line_and_on_an_empty_one_leaves(keys: Any) -> None:
    assert read(keys, f"wrong{CTRL_C}right\r") == "right"
    with pytest.raises(KeyboardInterrupt):
        read(keys, f"wrong{CTRL_C}{CTRL_C}")


def test_ctrl_d_leaves_on_an_empty_line_only(keys: Any) -> None:
    with pytest.raises(EOFError):
        read(keys, CTRL_D)
    assert read(keys, f"a{CTRL_D}b\r") == "ab"


def test_lines_are_remembered_across_runs(keys: Any, tmp_path: Path) -> None:
    history = tmp_path / "made" / "lines"
    for line in ("first", "größe 🐕", "two\\\rlines"):
        read(keys, f"{line}\r", history)
    assert read(keys, f"{UP}\r", history) == "two\nlines"
    assert read(keys, f"{UP}{UP}{UP}\r", history) == "größe 🐕"
    if os.name != "nt":
        assert stat.S_IMODE(history.stat().st_mode) == 0o600
        assert stat.S_IMODE(history.parent.stat().st_mode) == 0o700


def test_a_history_that_others_may_read_is_closed_to_them(keys: Any, tmp_path: Path) -> None:
    (tmp_path / "lines").touch(mode=0o644)
    read(keys, "hello\r", tmp_path / "lines")
    if os.name != "nt":
        assert stat.S_IMODE((tmp_path / "lines").stat().st_mode) == 0o600


def test_a_history_that_cannot_be_kept_ends_nothing(keys: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert read(keys, "hello\r", tmp_path / "file" / "lines") == "hello"
    assert read(keys, "hello\r", tmp_path) == "hello"
    (tmp_path / "lines").write_bytes(b"\xff\x00 no history\n+\xfe\n")
    assert read(keys, "hello\r", tmp_path / "lines") == "hello"


def test_a_history_that_vanishes_on_the_way_ends_nothing(keys: Any, tmp_path: Path) -> None:
    history = tmp_path / "folder" / "lines"
    editor = LineEditor(history, keys, DummyOutput())
    history.unlink()
    history.parent.rmdir()
    keys.send_text("one\rtwo\r")
    assert [editor.read("> "), editor.read("> ")] == ["one", "two"]


@pytest.mark.skipif(os.name == "nt", reason="its consoles send characters, not bytes")
def test_half_a_character_ends_nothing(keys: Any, tmp_path: Path) -> None:
    keys.send_bytes(b"a\xff")
    assert read(keys, "b\r", tmp_path / "lines") == "a\udcffb"
    assert "a?b" in (tmp_path / "lines").read_text()


def test_a_terminal_without_escape_codes_edits_lines_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = iter(("one\\", "two"))
    monkeypatch.setattr("builtins.input", lambda: next(typed))
    assert PlainEditor().read("> ") == "one\ntwo"
    assert "\x1b" not in "".join(capsys.readouterr())
