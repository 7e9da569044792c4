"""How a picture is laid out on square tiles.

Contract: pure arithmetic, equal to transformers' `MllamaImageProcessor`. A layout is rows and
columns of tiles; layouts are numbered from 1 in the order of `layouts`.
"""

from __future__ import annotations

import math

import numpy as np

MOST_TILES = 16


def layouts(tiles: int) -> list[tuple[int, int]]:
    """Rows and columns of every layout with at most so many tiles."""
    counts = range(1, tiles + 1)
    return [(rows, columns) for rows in counts for columns in counts if rows * columns <= tiles]


def layout(height: int, width: int, size: int, tiles: int) -> tuple[int, int]:
    """The layout for a picture.

    It is the one that enlarges the picture least, or where all are too small shrinks it least; of
    several the smallest.

    Args:
        height, width: of the picture, in pixels.
        size: side of a tile in pixels.
        tiles: how many there may be.
    """
    known = np.array(layouts(tiles))
    canvas = known * size
    scales = np.minimum(canvas[:, 0] / height, canvas[:, 1] / width)
    enlarging = scales[scales >= 1]
    scale = enlarging.min() if enlarging.size else scales.max()
    rows, columns = min(known[scales == scale].tolist(), key=math.prod)
    return rows, columns


def fitted(height: int, width: int, size: int, rows: int, columns: int) -> tuple[int, int]:
    """Height and width of a picture on a layout: in proportion, and not enlarged beyond a tile."""
    tall, wide = (
        min(max(length, size), count * size) for length, count in ((height, rows), (width, columns))
    )
    scale_tall, scale_wide = tall / height, wide / width
    if scale_wide < scale_tall:
        return min(math.floor(height * scale_wide) or 1, tall), wide
    return tall, min(math.floor(width * scale_tall) or 1, wide)
