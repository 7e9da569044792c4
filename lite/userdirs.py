"""Where this program keeps what it can make again, and what the person would miss.

Contract: one folder per user for each, where the system has such things (`platformdirs`);
`MMGPT_LITE_CACHE` and `MMGPT_LITE_DATA` override them. Nothing here is needed for correctness, so
callers carry on when it cannot be written.
"""

from __future__ import annotations

import os
from pathlib import Path

from platformdirs import PlatformDirs

NAME = "mmgpt-lite"


def cache_dir(name: str) -> Path:
    """The folder for one kind of cached thing; it may not exist yet, and perhaps never can."""
    return _folder("MMGPT_LITE_CACHE", "user_cache_path") / name


def data_dir(name: str) -> Path:
    """The folder for one kind of thing that cannot be made again; it too may not exist."""
    return _folder("MMGPT_LITE_DATA", "user_data_path") / name


def _folder(override: str, kind: str) -> Path:
    if given := os.environ.get(override):
        return Path(given)
    try:
        # Without them Windows would have two folders more: an author's, and one called Cache.
        folder: Path = getattr(PlatformDirs(NAME, appauthor=False, opinion=False), kind)
    except RuntimeError:  # a user without a home folder, as containers have them
        return Path(os.devnull)
    # Before platformdirs 4.10 there was no error, and `~` was left as it is.
    return Path(os.devnull) if str(folder).startswith("~") else folder
