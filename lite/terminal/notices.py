"""Notices that a person needs once, and not at every call.

Contract: a notice is printed at most once a day for each user, or each time where that cannot be
remembered. A terminal gets it broken between words.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import textwrap
import time
from collections.abc import Callable

from lite.userdirs import cache_dir

DAY_SECONDS = 24 * 3600


def once_a_day(say: Callable[[str], None]) -> Callable[[str], None]:
    """A function that passes a notice on to `say` unless it was printed within the last day."""

    def notice(message: str) -> None:
        mark = cache_dir("notices") / hashlib.sha256(message.encode()).hexdigest()[:16]
        try:
            if time.time() - mark.stat().st_mtime < DAY_SECONDS:
                return
        except OSError:  # never printed
            pass
        say(wrapped(message))
        try:
            mark.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            mark.touch()
        except OSError:  # printed again next time
            return

    return notice


def wrapped(message: str) -> str:
    """A message broken between words where a terminal would break it within one."""
    if not sys.stderr.isatty():
        return message
    columns = shutil.get_terminal_size().columns
    return textwrap.fill(message, columns, break_long_words=False, break_on_hyphens=False)
