"""A picture in a few character cells: upper half blocks, two pixels to a cell.

Contract: `cells` is arithmetic on arrays; `show` draws only on a terminal that has the colours and
the character for it, and draws nothing anywhere else.
"""

from __future__ import annotations

import sys

import numpy as np
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

from lite.terminal.screen import can_style

COLUMNS, ROWS = 24, 12
HALF = "\N{UPPER HALF BLOCK}"


def show(rgb: np.ndarray) -> None:
    """Draw a picture, uint8 `[H, W, 3]`, on stdout, if that can show it."""
    if not can_style(sys.stdout) or not _has_half_block():
        return
    console = Console(file=sys.stdout, highlight=False)
    if console.color_system in ("truecolor", "256"):
        console.print(drawing(cells(rgb, min(COLUMNS, console.width), ROWS)))


def cells(rgb: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """A picture scaled to fit into character cells twice as high as wide.

    Args:
        rgb: uint8 `[H, W, 3]`.
        columns: most cells beside each other.
        rows: most cells above each other.

    Returns:
        uint8 `[2 * r, c, 3]` with r <= rows and c <= columns, at least one cell; of an odd number
        of lines the last is repeated.
    """
    height, width, _ = rgb.shape
    scale = min(columns / width, 2 * rows / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # reducing_gap makes the scaling of large photos fast, at a loss that cells cannot show.
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX, reducing_gap=3.0))
    return np.concatenate([small, small[-1:]]) if len(small) % 2 else small


def drawing(pixels: np.ndarray) -> Text:
    """Pixels uint8 `[2 * r, c, 3]` as r lines of text."""
    text = Text()
    for upper, lower in zip(pixels[::2].tolist(), pixels[1::2].tolist(), strict=True):
        for top, bottom in zip(upper, lower, strict=True):
            style = Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom))
            text.append(HALF, style)
        text.append("\n")
    text.right_crop(1)
    return text


def _has_half_block() -> bool:
    try:
        HALF.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
