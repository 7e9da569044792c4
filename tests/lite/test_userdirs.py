"""Where files go: the same folders as ever, on each system."""

import os
from pathlib import Path

import pytest
from platformdirs.macos import MacOS
from platformdirs.unix import Unix
from platformdirs.windows import Windows

from lite import userdirs
from lite.userdirs import cache_dir, data_dir

VARIABLES = ("MMGPT_LITE_CACHE", "MMGPT_LITE_DATA", "XDG_CACHE_HOME", "XDG_DATA_HOME")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    local = {"CSIDL_LOCAL_APPDATA": r"C:\Users\me\AppData\Local"}
    monkeypatch.setattr("platformdirs.windows.get_win_folder", local.__getitem__)
    return tmp_path


@pytest.mark.skipif(os.name == "nt", reason="Windows asks the system, not the environment")
@pytest.mark.parametrize(
    ("system", "cache", "data"),
    [
        (Unix, "~/.cache/mmgpt-lite", "~/.local/share/mmgpt-lite"),
        (MacOS, "~/Library/Caches/mmgpt-lite", "~/Library/Application Support/mmgpt-lite"),
        (Windows, *[r"C:\Users\me\AppData\Local/mmgpt-lite"] * 2),
    ],
)
def test_each_system_has_its_folders(
    system: type, cache: str, data: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(userdirs, "PlatformDirs", system)
    assert str(cache_dir("a").parent) == cache.replace("~", str(home))
    assert str(data_dir("b").parent) == data.replace("~", str(home))
    assert (cache_dir("a").name, data_dir("b").name) == ("a", "b")


def test_variables_override_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(home / "c"))
    monkeypatch.setenv("MMGPT_LITE_DATA", str(home / "d"))
    assert cache_dir("a") == home / "c" / "a"
    assert data_dir("a") == home / "d" / "a"


@pytest.mark.skipif(os.name == "nt", reason="POSIX users")
def test_without_a_home_there_is_no_folder_that_could_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises KeyError, as for unknown users
    for folder in (cache_dir("a"), data_dir("a")):
        with pytest.raises(OSError, match=r"Not a directory|File exists|[Ee]xist"):
            folder.mkdir(parents=True)
