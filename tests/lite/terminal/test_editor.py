"""Typing: several lines, history across runs, and what Tab completes."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from lite.terminal.completion import LineCompleter
from lite.terminal.editor import LineEditor, PlainEditor
from lite.terminal.slash_commands import COMMANDS, SETTINGS
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


def completed(line: str) -> list[str]:
    """What the line may become."""
    document = Document(line)
    found = LineCompleter().get_completions(document, CompleteEvent(completion_requested=True))
    return [line[: len(line) + one.start_position] + one.text for one in found]


def test_commands_are_completed() -> None:
    assert completed("/") == list(COMMANDS)
    assert completed("/im") == ["/image", "/images"]
    assert completed("what /im") == []
    assert completed("") == []
    assert completed("/help ") == []


def test_settings_are_completed() -> None:
    assert completed("/set ") == [f"/set {name}" for name in SETTINGS]
    assert completed("/set top_") == ["/set top_k", "/set top_p"]
    assert completed("/set top_k 4") == []


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("dog.png", "my dog.JPG", "door.txt", ".dot.png", "park.session"):
        (tmp_path / name).touch()
    (tmp_path / "my pictures").mkdir()
    (tmp_path / "my pictures" / "a.png").touch()
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="spaces are escaped in other ways")
def test_paths_are_completed_so_that_they_are_read_back(files: Path) -> None:
    assert completed("/image ") == [
        "/image dog.png",
        "/image my\\ dog.JPG",
        "/image my\\ pictures/",
    ]
    assert completed("/image .d") == ["/image .dot.png"]
    assert completed("/image my\\ p") == ["/image my\\ pictures/"]
    assert completed("/image my\\ pictures/") == ["/image my\\ pictures/a.png"]
    assert completed("/image 'my d") == ["/image 'my dog.JPG'"]
    assert completed('/image "my p') == ['/image "my pictures/']
    assert completed("/image dog.png my\\ d") == ["/image dog.png my\\ dog.JPG"]
    assert completed("/load p") == ["/load park.session"]
    assert completed("/save do") == ["/save dog.png", "/save door.txt"]
    assert completed("/image nowhere/") == []
    assert completed("/image ~nobody-of-this-name/") == []
    assert completed(f"{files}/d") == [f"{files}/dog.png"]


def test_paths_in_the_home_folder_are_completed(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(files))
    monkeypatch.setenv("USERPROFILE", str(files))
    assert completed("/image ~/do") == ["/image ~/dog.png"]
