"""Where this program keeps what it can make again, and what the person would miss.

Contract: one folder per user for each, `MMGPT_LITE_CACHE` and `MMGPT_LITE_DATA` override them;
nothing here is needed for correctness, so callers carry on when it cannot be written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir(name: str) -> Path:
    """The folder for one kind of cached thing; it may not exist yet, and perhaps never can."""
    return _folder("MMGPT_LITE_CACHE", "XDG_CACHE_HOME", ".cache", "Caches") / name


def data_dir(name: str) -> Path:
    """The folder for one kind of thing that cannot be made again; it too may not exist."""
    place = _folder("MMGPT_LITE_DATA", "XDG_DATA_HOME", ".local/share", "Application Support")
    return place / name


def _folder(override: str, xdg: str, under_home: str, on_mac: str) -> Path:
    if given := os.environ.get(override):
        return Path(given)
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / on_mac
        else:
            base = Path(os.environ.get(xdg) or Path.home() / under_home)
    except RuntimeError:  # a user without a home folder, as containers have them
        return Path(os.devnull)
    return base / "mmgpt-lite"
