"""The records of a file by index: JSON lists, JSON lines, either one gzipped, and parquet.

Contract: opening finds where each record is and keeps none of them, so a file larger than the
memory can be shuffled; a record is read when asked for. A file that is cut off or is no JSON is
refused with the position. Everything here survives `fork` and `pickle`, as data workers need it.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lite.errors import BadInput, first_line
from qlora.data.json_spans import (
    damaged,
    first_character,
    line_spans,
    list_spans,
    position,
    whole_object,
)


class Records(ABC):
    """Records by index; `records[i]` raises `BadInput` for one that cannot be parsed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, index: int) -> Any: ...

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


def open_records(path: Path) -> Records | dict[str, Any]:
    """Open a data file.

    Args:
        path: `.json` (a list, an object, or one record a line), `.jsonl`, each also with `.gz`
            behind it, or `.parquet`. Which of the JSON forms it is shows the first character.

    Returns:
        The records; or, of a file that is one JSON object, that object.

    Raises:
        BadInput: the file is missing, of another kind, or damaged.
    """
    path = Path(path)
    if path.is_dir():
        raise BadInput(f"{path} is a folder; give a data file in it.")
    if not path.is_file():
        raise BadInput(f"{path} does not exist; check the path of the data set.")
    if path.suffix == ".parquet":
        return ParquetRecords(path)
    packed = path.suffix == ".gz"
    if (path.with_suffix("") if packed else path).suffix not in (".json", ".jsonl", ".ndjson"):
        raise BadInput(
            f"{path} is not a data file by its name; give a .json, .jsonl, .json.gz or .parquet "
            f"file."
        )
    try:
        data = _unpack(path) if packed else None
        first = first_character(path, data)
        if first == b"[":
            return JsonRecords(path, *list_spans(path, data), data)
        if first == b"{":
            whole = (
                None
                if ".jsonl" in path.name or ".ndjson" in path.name
                else whole_object(path, data)
            )
            return JsonRecords(path, *line_spans(path, data), data) if whole is None else whole
    except OSError as error:
        raise BadInput(
            f"{path} cannot be read ({error.strerror or error}); check the file and its rights."
        ) from error
    if not first:
        raise BadInput(f"{path} is empty; download it again.")
    raise BadInput(
        f"{path} is not JSON: it begins with {first!r} at byte 0 where a list or an object "
        f"should; download it again."
    )


class JsonRecords(Records):
    """Records of a JSON file, by the bytes where each one begins and ends."""

    def __init__(
        self, path: Path, starts: np.ndarray, ends: np.ndarray, data: bytes | None = None
    ) -> None:
        """
        Args:
            path: the file.
            starts, ends: int64 `[n]`, byte positions.
            data: the file's content if it had to be unpacked.
        """
        super().__init__(path)
        self._starts, self._ends, self._data = starts, ends, data

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Any:
        start, end = int(self._starts[index]), int(self._ends[index])
        try:
            return json.loads(self._read(start, end).decode("utf-8"))
        except OSError as error:
            raise BadInput(
                f"{self.path} cannot be read ({error.strerror or error}); check that it was not "
                f"moved."
            ) from error
        except (ValueError, RecursionError) as error:
            raise damaged(self.path, start + position(error), error) from error

    def _read(self, start: int, end: int) -> bytes:
        if self._data is not None:
            return self._data[start:end]
        # Opened each time: a shared file position would not survive a fork.
        with self.path.open("rb", buffering=0) as file:
            file.seek(start)
            return file.read(end - start)


class ParquetRecords(Records):
    """Rows of a parquet file.

    One row group is kept in memory; rows in an order of their own make each read a row group.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._process, self._group = -1, -1
        file = self._open()
        self._ends = np.cumsum(
            [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)], dtype=int
        )

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} is not in range({len(self)})")
        group = int(np.searchsorted(self._ends, index, side="right"))
        file = self._open()
        if self._group != group:
            try:
                self._table = file.read_row_group(group, use_threads=False)
            # Arrow has exceptions of its own for damage, and raises OSError as well.
            except Exception as error:
                raise self._unreadable(error) from error
            self._group = group
        row = index - (int(self._ends[group - 1]) if group else 0)
        return self._table.slice(row, 1).to_pylist()[0]

    def _open(self) -> Any:
        """The file, opened once in each process."""
        if self._process != os.getpid():
            try:
                import pyarrow.parquet as parquet
            except ImportError as error:
                raise BadInput(
                    f"{self.path} needs pyarrow to be read; run `pip install pyarrow`."
                ) from error
            try:
                self._file = parquet.ParquetFile(self.path)
            except Exception as error:
                raise self._unreadable(error) from error
            self._process, self._group, self._table = os.getpid(), -1, None
        return self._file

    def _unreadable(self, error: Exception) -> BadInput:
        reason = first_line(error).rstrip(".")
        return BadInput(f"{self.path} is not readable parquet ({reason}); download it again.")

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_ends": self._ends, "_process": -1, "_group": -1}


def _unpack(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadInput(
            f"{path} cannot be unpacked beyond its {path.stat().st_size} bytes ({error}); "
            f"download it again."
        ) from error
