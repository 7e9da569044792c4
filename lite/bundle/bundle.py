"""The bundle: an exported folder, opened with every claim in its manifest checked.

Contract: nothing of a bundle is used before its size and sha256 were compared with the manifest,
and no path leads out of the folder: the manifest lists plain file names, links are refused, and the
graphs may keep their weights only in listed files. `lite` asks the manifest what a model can do,
never its name.

A bundle is trusted as a program is: its graphs are run by ONNX Runtime, which ends no loop that a
graph asks for, and its expressions by `re` and `tokenizers`. The checks keep damaged files and
wrong claims from being used, and a bundle from reaching other files; open none of somebody whom
you do not trust.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lite.bundle.external_data import external_locations
from lite.bundle.manifest import DECODER, VISION, FileRecord, Manifest, read_manifest
from lite.errors import BadInput
from lite.files import sha256_of
from lite.userdirs import cache_dir

# Files up to this many bytes are hashed at each opening (a few hundredths of a second); larger ones
# once, and again when the file system tells that they may have changed.
ALWAYS_HASHED = 1 << 26


class Bundle:
    """An opened bundle: a manifest and a folder whose files match it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(
        cls,
        folder: str | Path,
        hashing: Callable[[str], None] = lambda name: None,
        verify: bool = False,
    ) -> Bundle:
        """Open and check a bundle.

        A file over 64 MiB that had the right hash once is not hashed again while it is the same
        file (device and inode) of the same size with the same times of writing (mtime) and of
        change (ctime). Nobody can set a ctime back but who sets the machine's clock or writes to
        the disk itself; on Windows there is none, so that a file whose mtime was set back passes.

        Args:
            folder: the bundle.
            hashing: called with the name of each large file that is about to be hashed.
            verify: hash every file.

        Raises:
            BadInput: anything is missing, truncated, altered, or would lead out of the folder.
        """
        folder = Path(folder)
        try:
            manifest = read_manifest(folder)
            for name, record in manifest.files.items():
                _check_file(folder / name, record, hashing, verify)
            for graph in (VISION, DECODER):
                _check_locations(folder / graph, manifest.files)
        except OSError as error:
            raise BadInput(
                f"{error.filename or folder} cannot be read ({error.strerror}); "
                f"check the path and who may read it."
            ) from None
        return cls(folder, manifest)

    def path(self, name: str) -> Path:
        """The path of one of its files."""
        return self.folder / name

    @property
    def digest(self) -> str:
        """sha256 over the manifest without its proofs: bundles of one digest are the same model.

        The files alone do not tell: one graph serves both attend rules.
        """
        claims = json.dumps(self.manifest.claims, sort_keys=True)
        return hashlib.sha256(claims.encode()).hexdigest()

    @property
    def vision_digest(self) -> str:
        """The same over all that the features of an image depend on."""
        parts: dict[str, Any] = {
            name: record.sha256
            for name, record in sorted(self.manifest.files.items())
            if name.startswith(VISION)
        }
        parts["preprocessing"] = self.manifest.preprocessing.to_json()
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def file_record(path: Path) -> FileRecord:
    """Size and sha256 of a file."""
    return FileRecord(path.stat().st_size, sha256_of(path))


def _check_file(
    path: Path, record: FileRecord, hashing: Callable[[str], None], verify: bool
) -> None:
    if path.is_symlink():
        raise BadInput(f"{path} is a link, which a bundle may not hold; copy the file itself.")
    if not path.is_file():
        raise BadInput(f"The bundle lacks {path}; export or copy it again.")
    size = path.stat().st_size
    if size != record.size:
        raise BadInput(
            f"{path} has {size} bytes instead of {record.size}, so it is truncated or altered; "
            f"export or copy the bundle again."
        )
    remembered = _Remembered(path, record)
    if size > ALWAYS_HASHED:
        if not verify and remembered.known():
            return
        hashing(path.name)
    if file_record(path) != record:
        raise BadInput(
            f"The sha256 of {path} does not match the manifest, so it was damaged or altered; "
            f"export or copy the bundle again."
        )
    if size > ALWAYS_HASHED:
        remembered.remember()


class _Remembered:
    """A note in the user's cache that a large file had its right hash, while it is unchanged."""

    def __init__(self, path: Path, record: FileRecord) -> None:
        s = path.stat()
        same = f"{s.st_dev} {s.st_ino} {s.st_size} {s.st_mtime_ns} {s.st_ctime_ns}"
        stamp = f"{path.resolve()} {same} {record.sha256}"
        self._note = cache_dir("verified") / hashlib.sha256(stamp.encode()).hexdigest()

    def known(self) -> bool:
        try:
            return self._note.is_file()
        except OSError:  # a cache that cannot be read is as good as none
            return False

    def remember(self) -> None:
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.touch()
        except OSError:
            pass  # a cache that cannot be written costs time at the next opening, nothing else


def _check_locations(graph: Path, files: Mapping[str, FileRecord]) -> None:
    for location in external_locations(graph):
        if location not in files:
            raise BadInput(
                f"{graph} keeps weights in {location!r}, which is not a file of this bundle; "
                f"do not use it, and export the bundle again."
            )
