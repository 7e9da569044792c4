"""Checkpoints of a run: complete or not there, and never trusted without a look.

Contract: a checkpoint is a folder `step-NNNNNNNN` that gets its name by one rename, after every
file in it has reached the disk and `manifest.json` with their sizes and SHA-256 has been written.
`latest` gives the newest one whose files are what its manifest says, so whatever a crash, a full
disk or a bad block left behind is passed over. Knows files, not models.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lite.files import replacing, replacing_folder, sha256_of

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8})")


@dataclass
class Checkpoints:
    """The checkpoints in one folder.

    Attributes:
        folder: where they are; made when the first one is saved.
        keep: how many of the newest stay.
        damaged: what `latest` passed over, one sentence each.
    """

    folder: Path
    keep: int = 2
    damaged: list[str] = field(default_factory=list)

    def save(self, step: int, write: Callable[[Path], None]) -> Path:
        """Make the checkpoint of a step.

        Args:
            step: number of finished optimizer steps.
            write: puts the files into the folder that it is given.

        Raises:
            OSError: it cannot be written; the earlier checkpoints are as they were.
        """
        final = self.folder / f"step-{step:08d}"
        # What has the name already is damaged, or it would have been resumed.
        with replacing_folder(final, durable=True) as partial:
            write(partial)
            manifest = {"step": step, "files": {n: _record(partial / n) for n in _files(partial)}}
            (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        self._prune()
        return final

    def latest(self) -> Path | None:
        """The newest sound checkpoint, or None."""
        self.damaged.clear()
        for step, path in reversed(self._all()):
            problem = _problem(path, step)
            if problem is None:
                return path
            self.damaged.append(f"The checkpoint {path} is damaged ({problem}) and is passed over.")
        return None

    def _all(self) -> list[tuple[int, Path]]:
        if not self.folder.is_dir():
            return []
        named = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in named if match)

    def _prune(self) -> None:
        for _, path in self._all()[: -self.keep]:
            # Renamed first: a half-deleted folder must not look like a damaged checkpoint.
            doomed = path.with_name(f".{path.name}.old")
            shutil.rmtree(doomed, ignore_errors=True)
            path.rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        for leftover in self.folder.glob(".step-*"):
            shutil.rmtree(leftover, ignore_errors=True)


def step_of(checkpoint: Path) -> int:
    """Number of finished optimizer steps in a checkpoint."""
    match = _NAME.fullmatch(checkpoint.name)
    assert match is not None
    return int(match[1])


def write_text_atomically(path: Path, text: str) -> None:
    """Replace a small file at once or not at all. Raises OSError."""
    with replacing(path, durable=True) as partial:
        partial.write_text(text, encoding="utf-8")


def _files(folder: Path) -> list[str]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path.relative_to(folder).as_posix() for path in found if path.name != MANIFEST)


def _record(path: Path) -> dict[str, object]:
    return {"size": path.stat().st_size, "sha256": sha256_of(path)}


def _problem(folder: Path, step: int) -> str | None:
    """Why a checkpoint cannot be trusted, or None."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["step"] != step:
            return f"its manifest is that of step {manifest['step']}"
        expected = manifest["files"]
        if sorted(expected) != _files(folder):
            return "files are missing or were added"
        for name, record in expected.items():
            if (folder / name).stat().st_size != record["size"]:
                return f"{name} has another size"
            if _record(folder / name) != record:
                return f"{name} has other content"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its manifest cannot be read: {type(error).__name__}"
    return None
