"""Files and folders that are there whole or not at all, and what tells one content from another.

Contract: the one place that writes under another name and renames, that waits for the disk, and
that hashes files. What is written gets its name only when it is complete; what fails, or is
interrupted, leaves what was there before.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHUNK = 1 << 20


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal. Raises OSError."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return sha.hexdigest()


@contextmanager
def replacing(path: Path, *, durable: bool = False, private: bool = False) -> Iterator[Path]:
    """A path to write a file to, which becomes `path` when its context ends well.

    Args:
        path: the file; its folder is made where there is none.
        durable: wait until the file and its name have reached the disk.
        private: only the user may read the file.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays: it tells some writers the format. No name is longer than `path`'s may be.
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    try:
        if private:  # from its first byte on
            os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        yield partial
        if durable:
            sync(partial)
        partial.replace(path)
        if durable:
            sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A folder to fill, empty at first, which becomes `path` when its context ends well.

    For one process at a time: a process that is killed leaves a hidden folder, which the next one
    clears away. An older folder goes only when the new one stands.

    Args:
        path: the folder.
        durable: wait until all files and names have reached the disk.

    Raises:
        OSError: it cannot be written; what was at `path` is still there.
    """
    restore_replaced(path)
    partial, replaced = path.with_name(f".{path.name}.partial"), _replaced(path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if durable:
            for inside in (*partial.rglob("*"), partial):
                sync(inside)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
            path.rename(replaced)
        partial.rename(path)
        if durable:
            sync(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def restore_replaced(path: Path) -> None:
    """Put back the folder that `replacing_folder` was replacing when its process was killed."""
    if _replaced(path).is_dir() and not path.exists():
        _replaced(path).rename(path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `path` when its context ends well.

    Several processes may make the same one at once: the first one's stays.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    partial.mkdir(parents=True)
    try:
        yield partial
        try:
            partial.rename(path)
        except OSError:
            if not path.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def sync(path: Path) -> None:
    """Wait until a file or folder has reached the disk. Raises OSError."""
    if os.name == "nt" and path.is_dir():  # cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replaced(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")
