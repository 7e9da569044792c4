"""The demo model that comes with the package: a bundle, and where it is.

Contract: the bundle is package data like any other bundle, opened with the same checks; nothing
here knows what it can do. How it was made and how well it does is in README.md beside this file.
"""

from __future__ import annotations

from pathlib import Path

from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput

FOLDER = Path(__file__).parent / "bundle"
# What a server calls it; other bundles have their folder's name.
NAME = "mmgpt-lite-demo"
NOTICE = (
    "This is the demo model, which knows drawn scenes as in examples/; for photographs, "
    "lite-export a real checkpoint and name its bundle with -m."
)


def folder() -> Path:
    """Where the demo bundle is.

    Raises:
        BadInput: this installation came without it.
    """
    if not (FOLDER / MANIFEST).is_file():
        raise BadInput(
            f"This installation has no demo bundle in {FOLDER}; name a bundle (-m BUNDLE), which "
            f"'lite-export tiny -o tiny-bundle' makes without any download."
        )
    return FOLDER
