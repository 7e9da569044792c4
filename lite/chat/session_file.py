"""The container of a session: named arrays in one file behind a magic line and a hash.

Contract: knows bytes, names and shapes, not conversations. A file appears whole or not at all,
readable by its owner only, and is streamed both ways: one array is in memory at a time. Nothing
that a file claims is believed before the hash over all of it was right, and even then nothing is
allocated by a claimed size before it was compared with what is expected and with the file's own
length, so that a file made to do harm costs no more than an honest one.

    mmgpt-lite session 2\\n     the magic line
    32 bytes                   sha256 of all other bytes of the file (version 1: of what follows)
    zip, nothing compressed    the arrays as NAME.npy, as numpy writes them
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from lite.errors import BadInput, LiteError, first_line
from lite.files import replacing

MAGIC = b"mmgpt-lite session "
VERSION = 2
SHA_BYTES = 32
CHUNK = 1 << 18
# A directory entry of ours has 46 bytes, a name of at most 68 and 28 bytes for sizes over 4 GiB.
DIRECTORY_ENTRY = 256
# numpy itself believes headers up to this length to be harmless.
NPY_HEADER = 10_000


class SessionFile:
    """The arrays of a file whose hash was right."""

    def __init__(self, version: int, archive: zipfile.ZipFile, length: int) -> None:
        """
        Raises:
            ValueError: the archive is none that `write` makes.
        """
        self.version = version
        self._archive = archive
        entries = archive.infolist()
        self.names = {entry.filename.removesuffix(".npy") for entry in entries}
        stored = all(
            e.compress_type == zipfile.ZIP_STORED and e.compress_size == e.file_size
            for e in entries
        )
        if not stored or sum(e.file_size for e in entries) > length:
            raise ValueError("an array claims to be larger than the file")
        if len(self.names) != len(entries):
            raise ValueError("two arrays have one name")

    def text(self, name: str, limit: int) -> bytes:
        """An array of at most `limit` bytes, whose length the reader does not know."""
        with self._open(name) as entry:
            shape, dtype = _npy_header(entry)
        if dtype != np.uint8 or len(shape) != 1 or shape[0] > limit:
            raise ValueError(f"{name} is {dtype} {list(shape)}")
        return self.array(name, shape, np.uint8).tobytes()

    def array(self, name: str, shape: tuple[int, ...], dtype: type = np.float32) -> np.ndarray:
        """An array of known shape.

        Raises:
            ValueError: it is another one, or has numbers that are not finite.
            KeyError: there is none of that name.
        """
        wanted = np.dtype(dtype).newbyteorder("<")
        with self._open(name) as entry:
            found = _npy_header(entry)
            if found != (shape, wanted):
                raise ValueError(f"{name} is {found[1]} {list(found[0])}, not {list(shape)}")
            size = math.prod(shape) * wanted.itemsize
            if entry.tell() + size != self._archive.getinfo(f"{name}.npy").file_size:
                raise ValueError(f"{name} has another length than its shape")
            array = np.empty(shape, dtype=wanted)
            flat = array.reshape(-1).view(np.uint8)
            for at in range(0, size, CHUNK):
                chunk = entry.read(min(CHUNK, size - at))
                flat[at : at + CHUNK] = np.frombuffer(chunk, dtype=np.uint8)
        if not np.isfinite(array).all():
            raise ValueError(f"{name} has numbers that are not finite")
        return array.astype(dtype, copy=False)

    def _open(self, name: str) -> IO[bytes]:
        if name not in self.names:
            raise KeyError(name)
        return self._archive.open(f"{name}.npy")


@contextmanager
def reading(path: Path, most_arrays: int) -> Iterator[SessionFile]:
    """Open a file and check its hash.

    Args:
        path: the file.
        most_arrays: that it may hold.

    Raises:
        BadInput: it cannot be read, is no session, or is damaged; also for any exception that the
            reader of its arrays raises and that is not a `LiteError` itself.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "not a file")  # a pipe would never answer
        with _Reader(io.FileIO(path), max(CHUNK, most_arrays * DIRECTORY_ENTRY)) as file:
            version = _checked_version(path, file)
            with zipfile.ZipFile(file) as archive:
                yield SessionFile(version, archive, os.fstat(file.fileno()).st_size)
    except LiteError:
        raise
    except OSError as error:
        raise BadInput(
            f"The session {path} cannot be read ({error.strerror or error}); "
            f"check the path and who may read it."
        ) from None
    except Exception as error:  # numpy and zipfile have a dozen kinds for bytes they cannot read
        what = f"{error} is missing" if isinstance(error, KeyError) else first_line(error)
        raise BadInput(f"The session {path} is damaged ({what}); it cannot be used.") from None


def write(path: Path, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    """Write arrays, one after the other as they come, and replace `path` by them.

    Raises:
        BadInput: the file cannot be written; what was at `path` is still there.
    """
    try:
        if path.exists() and not path.is_file():
            raise OSError(None, "not a file")
        target = Path(os.path.realpath(path))  # a link stays one
        target.parent.stat()  # a folder that is not there is a mistake in the path
        with replacing(target, durable=True, private=True) as partial, partial.open("wb") as file:
            _write_content(file, arrays)
    except OSError as error:
        raise BadInput(
            f"The session {path} cannot be written ({error.strerror or error}); "
            f"choose another place, what was there is unchanged."
        ) from None


def _write_content(file: BinaryIO, arrays: Iterable[tuple[str, np.ndarray]]) -> None:
    magic = MAGIC + b"%d\n" % VERSION
    file.write(magic + bytes(SHA_BYTES))
    sink = _HashedSink(file, hashlib.sha256(magic))
    with zipfile.ZipFile(sink, "w") as archive:
        for name, array in arrays:
            _write_array(archive, name, array)
    file.seek(len(magic))
    file.write(sink.sha.digest())


def _write_array(archive: zipfile.ZipFile, name: str, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    header = np.lib.format.header_data_from_array_1_0(array)
    # A ZipInfo of its own has no date: equal conversations give equal files.
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as entry:
        np.lib.format.write_array_header_1_0(entry, header)
        data = array.reshape(-1).data.cast("B")
        for at in range(0, len(data), CHUNK):
            entry.write(data[at : at + CHUNK])


def _npy_header(entry: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of a .npy stream, which is then at its first value."""
    if np.lib.format.read_magic(entry) != (1, 0):
        raise ValueError("an array has an unknown format")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(entry, NPY_HEADER)
    if fortran:
        raise ValueError("an array has an unknown order")
    return shape, dtype


def _checked_version(path: Path, file: BinaryIO) -> int:
    """Read the file through, and return its version if its hash is right."""
    magic = file.readline(len(MAGIC) + 8)
    found = re.fullmatch(re.escape(MAGIC) + rb"([1-9]\d*)\n", magic)
    if not found:
        raise BadInput(f"{path} is not a session; give a file that was saved here.")
    version = int(found.group(1))
    if version > VERSION:
        raise BadInput(
            f"The session {path} is of version {version} and this program reads up to {VERSION}; "
            f"install a newer release."
        )
    claimed = file.read(SHA_BYTES)
    sha = hashlib.sha256(magic if version > 1 else b"")
    while chunk := file.read(CHUNK):
        sha.update(chunk)
    if sha.digest() != claimed:
        raise BadInput(f"The session {path} is truncated or altered; it cannot be used.")
    return version


class _Reader(io.BufferedReader):
    """A file that never hands out more than `most` bytes at once.

    `zipfile` reads a table of contents at one go, as long as the file says that it is, and builds
    an object for each line of it.
    """

    def __init__(self, file: io.FileIO, most: int) -> None:
        super().__init__(file)
        self._most = most

    def read(self, size: int | None = -1) -> bytes:
        most = self._most + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise ValueError("its table of contents is too long")
        return data


class _HashedSink(io.RawIOBase):
    """Passes on what is written, and hashes it; like a pipe it cannot seek."""

    def __init__(self, file: BinaryIO, sha: Any) -> None:
        self._file = file
        self.sha = sha

    def write(self, data: Any) -> int:
        self.sha.update(data)
        return self._file.write(data)
