"""`lite-chat cache`: what it lists, bounds and removes."""

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from lite.commands.cache import command
from lite.errors import BadInput


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of three pictures, 1, 2 and 3 MB, used in this order, and one arranged decoder."""
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path))
    (tmp_path / "visual").mkdir()
    for number in (1, 2, 3):
        file = tmp_path / "visual" / f"{number}.f32"
        file.write_bytes(bytes(number * 10**6))
        os.utime(file, (number, number))
    graph = tmp_path / "prepacked" / "model" / "cpu" / "decoder.onnx"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(bytes(4 * 10**6))
    os.utime(graph, (9, 9))
    return tmp_path


def cache(*arguments: str) -> list[list[str]]:
    """The words of each line that the command prints."""
    done = CliRunner().invoke(command, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return [line.split() for line in done.stdout.splitlines()]


def test_it_lists_what_is_kept(kept: Path) -> None:
    visual, prepacked, total = cache()
    assert visual[:4] == ["visual", "3", "6.0", "MB"]
    assert prepacked[:4] == ["prepacked", "1", "4.0", "MB"]
    assert total[:4] == ["in", "all", "10.0", "MB"]
    assert total[-1] == str(kept)


def test_it_clears_one_kind_or_all(kept: Path) -> None:
    assert cache("--clear", "visual")[-1][2] == "4.0"
    assert not list((kept / "visual").iterdir())
    assert cache("--clear", "all")[-1][2] == "0.0"
    assert not list((kept / "prepacked").iterdir())


def test_it_bounds_what_is_kept_by_age(kept: Path) -> None:
    assert cache("--limit-mb", "8")[-1][2] == "7.0"
    assert [file.name for file in (kept / "visual").iterdir()] == ["3.f32"]
    assert (kept / "prepacked" / "model").is_dir()


def test_an_unknown_kind_is_one_sentence(kept: Path) -> None:
    with pytest.raises(BadInput, match=r"^Nothing called pictures is kept; give one of .*, all\.$"):
        cache("--clear", "pictures")
    assert len([*(kept / "visual").iterdir()]) == 3


def test_an_empty_cache_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "nothing"))
    assert cache("--clear", "all")[-1][2] == "0.0"
