"""What Tab completes."""

import os
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from lite.terminal.completion import LineCompleter
from lite.terminal.slash_commands import COMMANDS, SETTINGS


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
