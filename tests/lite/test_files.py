"""Files that are there whole or not at all."""

import hashlib
import os
import stat
import sys
import threading
from pathlib import Path

import pytest

from lite.files import new_folder, replacing, replacing_folder, restore_replaced, sha256_of


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 21) + 5])
def test_the_hash_is_that_of_all_bytes(size: int, tmp_path: Path) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_is_replaced_when_it_is_complete(durable: bool, tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.json"
    with replacing(path, durable=durable) as partial:
        partial.write_text("one")
        assert not path.exists()
        assert partial.suffix == ".json"
    with replacing(path, durable=durable) as partial:
        partial.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two"
    assert names(path.parent) == ["a.json"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("make", [replacing, replacing_folder, new_folder])
def test_what_fails_leaves_what_was_there(make, error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "a"
    if make is replacing:
        path.write_text("old")
    elif make is replacing_folder:
        path.mkdir()
        (path / "old").touch()
    before = [*tmp_path.rglob("*")]

    def fail() -> None:
        with make(path) as partial:
            (partial / "b" if partial.is_dir() else partial).write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert [*tmp_path.rglob("*")] == before


@pytest.mark.parametrize("make", [replacing, replacing_folder])
def test_what_is_durable_is_on_the_disk_before_it_has_its_name(
    make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []
    path, real = tmp_path / "a", os.fsync

    def fsync(descriptor: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), path.exists()))
        real(descriptor)

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the names of open files are read from /proc")
    monkeypatch.setattr("lite.files.os.fsync", fsync)
    with make(path, durable=True) as partial:
        if make is replacing:
            partial.touch()
            wanted = {str(partial)}
        else:
            (partial / "b").mkdir()
            (partial / "b" / "c").touch()
            wanted = {str(partial), str(partial / "b"), str(partial / "b" / "c")}
    assert {name for name, named in synced if not named} == wanted
    assert synced[-1] == (str(tmp_path), True)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_a_private_file_is_never_readable_by_others(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        for private, mode in ((True, 0o600), (False, 0o666)):
            with replacing(tmp_path / "a", private=private) as partial, partial.open("wb") as file:
                assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
            assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    finally:
        os.umask(old)


def test_the_longest_name_that_there_is(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 250}.json"
    with replacing(path) as partial:
        partial.write_text("x")
    assert path.read_text() == "x"


def test_threads_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path, wait = tmp_path / "a", threading.Barrier(4)

    def write(text: str) -> None:
        with replacing(path) as partial:
            wait.wait()
            partial.write_text(text * 100_000)
            wait.wait()

    threads = [threading.Thread(target=write, args=(str(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*path.read_text()}) == 1
    assert path.stat().st_size == 100_000
    assert names(tmp_path) == ["a"]


def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for name in ("one", "two"):
        with replacing_folder(path) as partial:
            (partial / name).touch()
        assert names(path) == [name]
    assert names(tmp_path) == ["a"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "half").touch()
    (tmp_path / ".a.replaced").mkdir()
    (tmp_path / ".a.replaced" / "old").touch()
    restore_replaced(tmp_path / "a")
    assert names(tmp_path / "a") == ["old"]
    with replacing_folder(tmp_path / "a") as partial:
        (partial / "new").touch()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == ["new"]


def test_of_processes_that_make_one_folder_the_first_wins(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with new_folder(path) as late:
        (late / "late").touch()
        with new_folder(path) as early:
            (early / "early").touch()
    assert names(path) == ["early"]
    assert names(tmp_path) == ["a"]
