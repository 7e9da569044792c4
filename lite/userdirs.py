"""Where this program keeps what it can make again.

Contract: one folder per user, `MMGPT_LITE_CACHE` overrides it; nothing here is needed for
correctness, so callers carry on when it cannot be written.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir(name: str) -> Path:
    """The folder for one kind of cached thing; it may not exist yet, and perhaps never can."""
    try:
        return _root() / name
    except RuntimeError:  # a user without a home folder, as containers have them
        return Path(os.devnull) / name


def _root() -> Path:
    override = os.environ.get("MMGPT_LITE_CACHE")
    if override:
        return Path(override)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "mmgpt-lite"
