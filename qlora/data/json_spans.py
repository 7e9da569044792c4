"""Where the values of a JSON file begin and end, in bytes.

Contract: one pass through a window, so the file may be larger than the memory; a text that is cut
off or no JSON is a `BadInput` with the position of the first byte that could not be understood.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lite.errors import BadInput

# Records are smaller than this, almost always; a larger one makes the window grow.
_WINDOW = 4 << 20
_BOM = b"\xef\xbb\xbf"
_SPACE = re.compile(r"[ \t\n\r]*")
# Behind a number that ends at the window's edge there may be more of it ("1" of "1.5e-3").
_MARGIN = 8


def first_character(path: Path, data: bytes | None) -> bytes:
    """The first byte that is no white space."""
    for block in _blocks(path, data):
        if text := block.removeprefix(_BOM).lstrip(b" \t\r\n"):
            return text[:1]
    return b""


def _blocks(path: Path, data: bytes | None) -> Iterator[bytes]:
    if data is not None:
        yield data
        return
    with path.open("rb") as file:
        while block := file.read(_WINDOW):
            yield block


class _Scanner:
    """Values of a JSON text from left to right, in a window that is moved along it.

    Bytes are read as Latin-1, so that positions are those of bytes: in UTF-8 every byte of a
    character beyond ASCII is above 127, which JSON's grammar has in strings only.
    """

    def __init__(self, path: Path, data: bytes | None) -> None:
        self._path, self._blocks = path, _blocks(path, data)
        self._decoder = json.JSONDecoder()
        self._text, self._base, self._at, self._done = "", 0, 0, False
        self._more()
        if self._text.startswith(_BOM.decode("latin-1")):
            self._at = len(_BOM)

    def _more(self) -> bool:
        """Move the window on; at the end of the file it stays, and this is False."""
        wanted = max(_WINDOW, len(self._text) - self._at)
        pieces, size = [self._text[self._at :]], 0
        while size < wanted and not self._done:
            block = next(self._blocks, None)
            if block is None:
                self._done = True
            else:
                pieces.append(block.decode("latin-1"))
                size += len(block)
        if size:
            self._base, self._at, self._text = self._base + self._at, 0, "".join(pieces)
        return size > 0

    def character(self) -> str:
        """The next one that is no white space, which is not passed; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def skip(self) -> None:
        self._at += 1

    def value(self) -> tuple[int, int]:
        """Pass one value; returns the positions where it begins and ends."""
        self.character()
        while True:
            try:
                _, end = self._decoder.raw_decode(self._text, self._at)
                if len(self._text) - end >= _MARGIN or not self._more():
                    break
            except json.JSONDecodeError as error:
                if not self._more():
                    raise self.damaged(error, error.pos) from error
            except RecursionError as error:
                raise self.damaged(error, self._at) from error
        span = self._base + self._at, self._base + end
        self._at = end
        return span

    def damaged(self, error: BaseException | str, at: int | None = None) -> BadInput:
        return damaged(self._path, self._base + (self._at if at is None else at), error)


def list_spans(path: Path, data: bytes | None) -> tuple[np.ndarray, np.ndarray]:
    """Where the values of a JSON list begin and end."""
    scanner = _Scanner(path, data)
    scanner.character()
    scanner.skip()
    spans: list[tuple[int, int]] = []
    mark = scanner.character()
    while mark != "]":
        spans.append(scanner.value())
        mark = scanner.character()
        if mark not in (",", "]") or not mark:
            raise scanner.damaged("a comma or the end of the list is missing")
        if mark == ",":
            scanner.skip()
    scanner.skip()
    if scanner.character():
        raise scanner.damaged("something follows the end of the list")
    return _columns(spans)


def line_spans(path: Path, data: bytes | None) -> tuple[np.ndarray, np.ndarray]:
    """Where the lines begin and end that are not blank."""
    spans: list[tuple[int, int]] = []
    base, begun = 0, b""
    for block in _blocks(path, data):
        lines = (begun + block).split(b"\n")
        begun = lines.pop()
        for line in lines:
            if not line.isspace() and line:
                spans.append((base, base + len(line)))
            base += len(line) + 1
    if begun.strip():
        spans.append((base, base + len(begun)))
    if spans and spans[0][0] == 0 and next(_blocks(path, data)).startswith(_BOM):
        spans[0] = (len(_BOM), spans[0][1])
    return _columns(spans)


def _columns(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(spans, np.int64).reshape(-1, 2)
    return table[:, 0].copy(), table[:, 1].copy()


def whole_object(path: Path, data: bytes | None) -> dict[str, Any] | None:
    """The file as one JSON object; None if it is one object a line."""
    content = (path.read_bytes() if data is None else data).removeprefix(_BOM)
    try:
        return json.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return None
        raise damaged(path, position(error), error) from error


def position(error: BaseException) -> int:
    """Bytes before what a parser stumbled over, in the text that it was given."""
    if isinstance(error, json.JSONDecodeError):
        return len(error.doc[: error.pos].encode("utf-8", "surrogatepass"))
    return error.start if isinstance(error, UnicodeDecodeError) else 0


def damaged(path: Path, at: int, error: BaseException | str) -> BadInput:
    """The refusal of a file that cannot be understood at a byte."""
    if isinstance(error, json.JSONDecodeError):
        error = error.msg[0].lower() + error.msg[1:]
    elif isinstance(error, UnicodeDecodeError):
        error = "not UTF-8"
    elif isinstance(error, RecursionError):
        error = "nested too deeply"
    return BadInput(
        f"{path} is cut off or no valid JSON at byte {at} ({error}); download it again."
    )
