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
# Between the two in the name of a varied font.
WITH = ", "
# What training makes of a font: how far its top leans to the right, in heights, and its width.
VARIATIONS = {
    "leaning": (0.2, 1.0),
    "narrow": (0.0, 0.8),
    "wide": (0.0, 1.25),
    "leaning narrow": (0.25, 0.85),
    "leaning wide": (0.15, 1.15),
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


def varied(font: str, variation: str) -> str:
    """The name of a font with one of `VARIATIONS`."""
    return f"{font}{WITH}{variation}"


def variation_of(font: str) -> tuple[float, float]:
    """Lean and width of a font by its name; (0, 1) of one as it is."""
    return VARIATIONS.get(font.partition(WITH)[2], (0.0, 1.0))


@cache
def letters(font: str, size: int) -> ImageFont.FreeTypeFont:
    """A font for words, `size` pixels high; of a varied one, what it is made of."""
    file = find(FONTS[font.partition(WITH)[0]])
    return ImageFont.truetype(file, size, layout_engine=ImageFont.Layout.BASIC)


@cache
def emoji() -> ImageFont.FreeTypeFont:
    """The emoji font, at its only size."""
    return ImageFont.truetype(find(EMOJI), EMOJI_SIZE, layout_engine=ImageFont.Layout.BASIC)
