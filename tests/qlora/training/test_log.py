"""The log holds every step, whatever the texts in it and the disk do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qlora.training.log import LOG, RunLog, read_log

VALUES = {"loss": 1.0}


def test_any_text_comes_back(tmp_path: Path) -> None:
    answer = {"question": "a\u2028b\x85c\nd", "image": "half \udcff.png"}
    with RunLog(tmp_path, 0, 3, active=True) as log:
        log.step(1, VALUES, 10, 0)
        log.evaluation(1, {"text": 2.0}, [answer])
        log.step(2, VALUES, 10, 0)
    before = (tmp_path / LOG).read_bytes()
    assert [record["step"] for record in read_log(tmp_path / LOG)] == [1, 1, 2]
    assert read_log(tmp_path / LOG)[1]["answers"] == [answer]
    with RunLog(tmp_path, 2, 3, active=True) as log:
        assert log.evaluated(1)
        assert not log.evaluated(2)
    assert (tmp_path / LOG).read_bytes() == before


def test_lines_wait_for_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        """A file on a disk with room for a few bytes."""

        def __init__(self, room: int) -> None:
            self.room, self.content = room, b""

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written = data[: self.room]
            self.content, self.room = self.content + written, self.room - len(written)
            return len(written)

        def close(self) -> None:
            pass

    with RunLog(tmp_path, 0, 3, active=True) as log:
        log._file.close()
        log._file = disk = Full(20)  # type: ignore[assignment]
        log.step(1, VALUES, 10, 0)
        log.step(2, VALUES, 10, 0)
        with pytest.raises(OSError, match="No space"):
            log.flush()
        disk.room = 10_000
        log.flush()
    assert [json.loads(line)["step"] for line in disk.content.splitlines()] == [1, 2]
