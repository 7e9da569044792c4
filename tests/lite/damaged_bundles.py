"""Bundles to spoil, for tests of what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

import lite
from lite.bundle.bundle import file_record
from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput


def refusal(folder: Path) -> str:
    """The one sentence with which a bundle is refused."""
    with pytest.raises(BadInput) as caught:
        lite.load(folder).chat()
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text())


def claim(folder: Path, **claims: Any) -> None:
    """Write other claims into the manifest."""
    (folder / MANIFEST).write_text(json.dumps(manifest(folder) | claims))


def recorded(folder: Path) -> dict[str, Any]:
    """Records of the files as they are now."""
    return {
        p.name: vars(file_record(p)) for p in folder.iterdir() if p.is_file() and p.name != MANIFEST
    }
