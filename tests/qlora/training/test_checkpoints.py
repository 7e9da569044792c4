"""A checkpoint is whole or it is not there, and a damaged one is passed over."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from qlora.training.checkpoints import MANIFEST, Checkpoints, step_of, write_text_atomically
from tests.processes import PROCESSES


def write(folder: Path) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "weights").write_bytes(os.urandom(4096))
    (folder / "state").write_bytes(b"state")


def test_the_newest_checkpoint_is_the_latest_and_old_ones_go(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    assert checkpoints.latest() is None
    for step in (5, 10, 15):
        checkpoints.save(step, write)
    latest = checkpoints.latest()
    assert latest is not None
    assert step_of(latest) == 15
    names = sorted(path.name for path in checkpoints.folder.iterdir())
    assert names == ["step-00000010", "step-00000015"]


@pytest.mark.parametrize(
    "damage", ["cut", "flip", "missing", "extra", "no manifest", "cut manifest"]
)
def test_a_damaged_checkpoint_is_passed_over_with_a_sentence(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    sound, damaged = checkpoints.save(1, write), checkpoints.save(2, write)
    file = damaged / "adapter" / "weights"
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "missing":
        file.unlink()
    elif damage == "extra":
        (damaged / "more").write_text("x")
    elif damage == "no manifest":
        (damaged / MANIFEST).unlink()
    else:
        (damaged / MANIFEST).write_text('{"step": 2, "files"')
    assert checkpoints.latest() == sound
    assert len(checkpoints.damaged) == 1
    assert str(damaged) in checkpoints.damaged[0]


def test_a_checkpoint_under_another_name_is_not_trusted(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, write).rename(tmp_path / "step-00000009")
    assert checkpoints.latest() is None


def test_what_cannot_be_written_leaves_the_earlier_ones_alone(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    sound = checkpoints.save(1, write)

    def fail(folder: Path) -> None:
        write(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.save(2, fail)
    assert [path.name for path in tmp_path.iterdir()] == [sound.name]
    assert checkpoints.latest() == sound


def save_without_end(folder: Path, finished: Any) -> None:
    def parts(folder: Path) -> None:
        for i in range(20):
            (folder / f"part-{i}").write_bytes(os.urandom(100_000))

    checkpoints = Checkpoints(folder)
    for step in range(1, 10_000):
        checkpoints.save(step, parts)
        finished.value = step


def test_killed_while_saving_the_last_finished_one_is_there(tmp_path: Path) -> None:
    finished = PROCESSES.RawValue("i", 0)
    process = PROCESSES.Process(target=save_without_end, args=(tmp_path, finished))
    process.start()
    while finished.value < 3:
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(0.013)
    process.kill()
    process.join()
    checkpoints = Checkpoints(tmp_path)
    latest = checkpoints.latest()
    assert latest is not None
    # One more may have got its name before it was counted.
    assert step_of(latest) in (finished.value, finished.value + 1)
    assert checkpoints.damaged == []
    manifest = json.loads((latest / MANIFEST).read_text())
    assert len(manifest["files"]) == 20


def test_a_text_is_replaced_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write_text_atomically(path, "one")
    write_text_atomically(path, "two")
    assert path.read_text() == "two"
    assert [p.name for p in tmp_path.iterdir()] == ["log"]
