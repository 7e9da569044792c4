"""Fonts that scenes are drawn with, found on the machine.

Contract: fonts are needed to draw and for nothing else. Emoji come from Noto Color Emoji (font
under OFL 1.1, images under Apache-2.0), letters from DejaVu (free, Bitstream Vera licence) and
Liberation (OFL 1.1). Debian's packages are in `PACKAGES`.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from PIL import ImageFont

from lite.errors import BadInput

PACKAGES = "fonts-noto-color-emoji fonts-dejavu-core fonts-dejavu-extra fonts-liberation"
# Colon-separated folders that are searched first.
VARIABLE = "MMGPT_LITE_FONTS"
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")

EMOJI = "NotoColorEmoji.ttf"
# The font has bitmaps of one size only.
EMOJI_SIZE = 109
FONTS = {
    "sans": "DejaVuSans.ttf",
    "sans bold": "DejaVuSans-Bold.ttf",
    "serif": "DejaVuSerif.ttf",
    "serif bold": "DejaVuSerif-Bold.ttf",
    "mono bold": "DejaVuSansMono-Bold.ttf",
    "narrow": "LiberationSansNarrow-Bold.ttf",
    "grotesque": "LiberationSans-Bold.ttf",
    "roman bold": "LiberationSerif-Bold.ttf",
    "oblique": "DejaVuSans-BoldOblique.ttf",
    "grotesque oblique": "LiberationSans-BoldItalic.ttf",
    "roman italic": "LiberationSerif-BoldItalic.ttf",
    "typewriter": "LiberationMono-Bold.ttf",
}


@cache
def _folder_files(searched: str) -> dict[str, Path]:
    folders = [Path(one).expanduser() for one in (*searched.split(os.pathsep), *FOLDERS) if one]
    return {path.name: path for folder in reversed(folders) for path in folder.rglob("*.ttf")}


def installed(file: str) -> Path | None:
    """Where a font's file is, or None."""
    return _folder_files(os.environ.get(VARIABLE, "")).get(file)


def find(file: str) -> Path:
    """Where a font's file is. Raises `BadInput`."""
    path = installed(file)
    if path is None:
        raise BadInput(
            f"The font {file}, which demo scenes are drawn with, is not installed; on Debian run "
            f"apt-get install {PACKAGES}, or name its folder in {VARIABLE}."
        )
    return path


@cache
def letters(font: str, size: int) -> ImageFont.FreeTypeFont:
    """A font for words, `size` pixels high."""
    return ImageFont.truetype(find(FONTS[font]), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def emoji() -> ImageFont.FreeTypeFont:
    """The emoji font, at its only size."""
    return ImageFont.truetype(find(EMOJI), EMOJI_SIZE, layout_engine=ImageFont.Layout.BASIC)
