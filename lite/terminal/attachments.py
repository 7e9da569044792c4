"""Pictures that a person names in a line, drops into the terminal, pipes in, or has copied.

Contract: understands paths as terminals write them on every system: bare, quoted, with escaped
spaces, or as `file://` addresses; what is on the disk decides between readings. What looks like a
picture is attached or refused by its name, never left in the text without a word.
"""

from __future__ import annotations

import io
import os
import re
import select
import shlex
import stat
import subprocess
import sys
import unicodedata
import urllib.parse
from dataclasses import replace
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from lite.errors import BadInput
from lite.image.loading import FORMATS, MAX_BYTES, Picture, load_image

SUFFIXES = {
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif"),
}
# A word of a line: quoted, or up to a space that no backslash escapes. Only the spaces that part
# words: macOS writes a narrow one (U+202F) into the names of screenshots.
WORD = re.compile(r"""(?:"[^"\n]*"|'[^'\n]*')(?=[ \t\n?!.,;:)]|$)|(?:\\[^\n]|[^ \t\n])+""")
PUNCTUATION, QUOTES = "?!.,;:)", "\"'"
# JPEG, PNG, GIF, BMP and TIFF; WebP and the family of AVIF and HEIC have theirs further on.
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"BM", b"II*\0", b"MM\0*")
MAX_NAME_WORDS = 16  # of a bare path with spaces beside a question
MAX_LINE = 100_000  # characters; a longer line is no path, and asking the system about it an error
# Quotes group, a backslash is a letter of the path: how Windows terminals write a dropped file.
WINDOWS_WORD = re.compile(r"""(?:"[^"]*"|'[^']*'|[^\s"'])+""")


def paths(text: str) -> list[str]:
    """The paths that an argument stands for, existing or not.

    Of the possible readings (one path with spaces, words of a POSIX shell, words of Windows) the
    first whose paths all exist is taken, else the one that this system's shells would make.
    """
    whole, posix = [text.strip()], _posix_words(text)
    windows = [re.sub("[\"']", "", word) for word in WINDOWS_WORD.findall(text)]
    readings = [[_on_disk(_path(word)) for word in words] for words in (whole, posix, windows)]
    for words in readings:
        if words and all(_exists(word) for word in words):
            return words
    return readings[2 if os.name == "nt" else 1] or readings[0]


def argument(text: str) -> str:
    """The path that an argument of a command stands for: the shell has read its quotes."""
    return _on_disk(_path(text))


def path(text: str) -> str:
    """The one path that an argument stands for, spaces and all."""
    words = paths(text)
    return words[0] if len(words) == 1 else text.strip()


def dropped(line: str) -> list[str]:
    """The paths of a line that is nothing but existing images; empty for any other line."""
    if not line.strip() or len(line) > MAX_LINE:
        return []
    words = paths(line)
    return words if all(_is_image(word) for word in words) else []


def attached(line: str) -> tuple[list[str], str]:
    """The paths of the pictures that a line names, and the question that is left.

    A path at either end of the line is cut out; one in the middle is a word of the question, which
    stays as it is. A name in backticks is text.

    Raises:
        BadInput: a word looks like a picture and is none: a file that is not there, or an address.
    """
    if len(line) > MAX_LINE:
        return [], line
    found: list[str] = []
    words = [match.span() for match in WORD.finditer(line)]
    spans: list[tuple[int, int]] = []
    at = 0
    while at < len(words):
        path, end = _picture_at(line, words, at)
        if path:
            found.append(path)
            spans.append((words[at][0], end))
        at += sum(start < end for start, _ in words[at:])
    return found, _without_ends(line, spans) if found else line


def _picture_at(line: str, words: list[tuple[int, int]], at: int) -> tuple[str, int]:
    """The picture whose path begins with a word, or "", and where its name ends."""
    start = words[at][0]
    for last in range(min(at + MAX_NAME_WORDS, len(words)) - 1, at - 1, -1):
        text = line[start : words[last][1]]
        named = text.rstrip(PUNCTUATION) or text
        if not _names_picture(named) and last > at:
            continue
        for written in (text, named):
            reading = paths(written)
            if len(reading) == 1 and _is_image(reading[0]) and _is_path(written):
                return reading[0], start + len(written)
    word = line[start : words[at][1]]
    named = word.rstrip(PUNCTUATION)
    if re.match(r"https?://", named, re.I):
        raise BadInput(
            f"{named} is an address, and nothing is fetched: download the picture and give its "
            f"path, or write the address in backticks."
        )
    if _names_picture(named) or named.lower().startswith("file://"):
        raise BadInput(
            f"There is no picture {named.strip(QUOTES)}; check the path, or write the name in "
            f"backticks if it belongs to the question."
        )
    return "", words[at][1]


def _names_picture(word: str) -> bool:
    """Whether a word ends like the name of a picture."""
    name = word.strip(QUOTES)
    return "`" not in name and Path(name).suffix.lower() in SUFFIXES and not name.startswith("<")


def _is_path(word: str) -> bool:
    """Whether a word is written as a path: a file named `cat` is not meant by every cat."""
    return _names_picture(word) or any(mark in word for mark in "/\\~")


def _without_ends(line: str, spans: list[tuple[int, int]]) -> str:
    """The line without the spans at its beginning and at its end."""
    start, end = 0, len(line)
    for first, last in spans:
        if line[start:first].strip(f"{PUNCTUATION} \t\n"):
            break
        start = last
    for first, last in reversed(spans):
        if first < start or line[last:end].strip():
            break
        end = first
    return line[start:end].lstrip(",;: \t\n" if start else None).rstrip()


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


def piped_start(seconds: float) -> bytes:
    """The first bytes that come on standard input within a time, without taking them from it.

    Empty where nothing comes: a terminal, a closed or empty input, a pipe that a program handed on
    and never writes to, and what a program that calls this put there that is no file.
    """
    try:
        sys.stdin.fileno()
    except (OSError, ValueError):
        return b""
    if sys.stdin.isatty():
        return b""
    # Windows waits for sockets only; there a pipe holds a picture if - says so.
    if os.name != "nt" and not select.select([sys.stdin.buffer], [], [], max(seconds, 0))[0]:
        return b""
    if os.name == "nt" and not stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        return b""
    return peek()


def peek() -> bytes:
    """The first bytes of standard input, as soon as some come; they stay in it."""
    assert isinstance(sys.stdin.buffer, io.BufferedReader)
    return sys.stdin.buffer.peek(64)


def is_picture(start: bytes) -> bool:
    """Whether a file begins like a picture: by its signature, and as no text does."""
    known = start.startswith(SIGNATURES) or start[4:8] == b"ftyp" or start[8:12] == b"WEBP"
    return known and any(byte < 9 or byte > 126 for byte in start[:32])


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


def _on_disk(path: str) -> str:
    """The file that a name means: as it is, or written with other spaces or accents.

    macOS writes a narrow space into the names of screenshots and stores accents apart (NFD); a name
    that went through other programs may have lost both.
    """
    try:
        file = Path(path)
        if file.suffix.lower() not in SUFFIXES or file.exists() or not file.parent.is_dir():
            return path
        wanted = unicodedata.normalize("NFKC", file.name)
        for entry in file.parent.iterdir():
            if unicodedata.normalize("NFKC", entry.name) == wanted:
                return str(entry)
    except (OSError, ValueError):  # longer than a path can be, or with a zero byte
        pass
    return path


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
