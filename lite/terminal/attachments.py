"""Images that a person drops into the terminal, names there, or has in the clipboard.

Contract: understands paths as terminals write them on every system: bare, quoted, with escaped
spaces, or as `file://` addresses; what is on the disk decides between readings.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import urllib.parse
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lite.errors import BadInput
from lite.image.loading import FORMATS, MAX_BYTES, Picture, load_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
# Quotes group, a backslash is a letter of the path: how Windows terminals write a dropped file.
WINDOWS_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")


def paths(text: str) -> list[str]:
    """The paths that an argument stands for, existing or not.

    Of the possible readings (one path with spaces, words of a POSIX shell, words of Windows) the
    first whose paths all exist is taken, else the one that this system's shells would make.
    """
    whole, posix = [text.strip()], _posix_words(text)
    windows = [re.sub("[\"']", "", word) for word in WINDOWS_WORD.findall(text)]
    readings = [[_path(word) for word in words] for words in (whole, posix, windows)]
    for words in readings:
        if words and all(_exists(word) for word in words):
            return words
    return readings[2 if os.name == "nt" else 1] or readings[0]


def path(text: str) -> str:
    """The one path that an argument stands for, spaces and all."""
    words = paths(text)
    return words[0] if len(words) == 1 else text.strip()


def dropped(line: str) -> list[str]:
    """The paths of a line that is nothing but existing images; empty for any other line."""
    # A line too long for this is no path, and asking the system about it is an error.
    if not line.strip() or len(line) > 100_000:
        return []
    words = paths(line)
    return words if all(_is_image(word) for word in words) else []


def clipboard() -> list[Picture]:
    """What the clipboard holds: one picture, or the pictures whose files were copied.

    Raises:
        BadInput: it holds none, or this system gives no access to it.
    """
    from PIL import ImageGrab

    try:
        held = ImageGrab.grabclipboard()
    except NotImplementedError:
        raise BadInput(
            "The clipboard cannot be read here; install wl-paste or xclip, or use /image PATH."
        ) from None
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        why = " ".join(str(error).split())
        raise BadInput(f"The clipboard cannot be read ({why}); use /image PATH.") from None
    if isinstance(held, Image.Image):
        return [replace(load_image(held), name="the clipboard")]
    files = [name for name in held or [] if _is_image(name)]
    if not files:
        raise BadInput("The clipboard holds no image; copy one, or give a path with /image.")
    return [load_image(name) for name in files]


def standard_input() -> Picture:
    """The picture whose encoded bytes come from standard input.

    Raises:
        BadInput: standard input is a terminal, or what comes is no usable image.
    """
    if sys.stdin.isatty():
        raise BadInput("- takes an image from standard input; pipe one in, or give its path.")
    # One byte beyond the cap, so that an endless stream is refused and not read.
    return replace(load_image(sys.stdin.buffer.read(MAX_BYTES + 1)), name="standard input")


def _posix_words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # an apostrophe
        return []


def _path(word: str) -> str:
    if word.lower().startswith("file://"):
        rest = urllib.parse.unquote(re.sub(r"^file://(localhost)?", "", word, flags=re.I))
        return re.sub(r"^/(?=[A-Za-z]:)", "", rest)  # file:///C:/ is C:/
    if word.startswith("~"):
        try:
            return str(Path(word).expanduser())
        except RuntimeError:  # nobody of that name
            return word
    return word


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # longer than a path can be, or with a zero byte
        return False


def _is_image(path: str) -> bool:
    """Whether a path leads to a file that is an image by its name or by its first bytes."""
    try:
        if not Path(path).is_file():
            return False
        if Path(path).suffix.lower() in SUFFIXES:
            return True
        with Image.open(path, formats=FORMATS):
            return True
    except (OSError, ValueError, UnidentifiedImageError):
        return False
    except Exception:  # Pillow knew the format: the refusal of what is in it comes from load_image
        return True
