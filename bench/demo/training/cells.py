"""Labels of each cell of a picture, to supervise the tokens of vision tower and resampler.

Contract: a scene is cut into `grid x grid` cells, one for each token. A cell belongs to the thing
that is drawn at its centre, or to the background. Contrastive training alone teaches little about
positions; these labels do, and drawn scenes have them for free.
"""

from __future__ import annotations

import string
from dataclasses import dataclass

import numpy as np

from bench.demo import fonts
from bench.demo.backgrounds import PHRASES, background_of
from bench.demo.draw import placed
from bench.demo.kinds import KINDS, PAINTS
from bench.demo.world import WORD, Scene, Thing
from qlora.data.encode import IGNORE

# Classes of a cell: a kind, a word, or a background by the phrase for it.
CELL_CLASSES = (*KINDS, WORD, *PHRASES)
COLOURS = ("", *PAINTS)
LETTERS = string.ascii_letters
# Letters of a word that have labels.
LONGEST_WORD = 8
# Frequencies of position codes, in waves along a side of the picture.
WAVES = 0.5, 1.0, 2.0, 4.0
# No label.
NONE = IGNORE

_CLASS_INDEX = {name: number for number, name in enumerate(CELL_CLASSES)}


@dataclass(frozen=True)
class Cells:
    """One entry for each cell, row by row.

    Attributes:
        shown: index into `CELL_CLASSES`.
        colour: index into `COLOURS`; `NONE` for the background.
        letter: index into `LETTERS`; `NONE` outside of words.
        box: from the cell's centre to the thing's left, top, right and bottom, in sides of the
            picture; zeros for the background.
        centre: whether the middle of a thing is in the cell.
        alike: how many things of the kind are in the picture; `NONE` for the background.
        twins: how many of these have the thing's colour as well.
        spelled: the whole word, letter by letter, indices into `LETTERS` and then `len(LETTERS)`;
            all `NONE` outside of words.
    """

    shown: np.ndarray
    colour: np.ndarray
    letter: np.ndarray
    box: np.ndarray
    centre: np.ndarray
    alike: np.ndarray
    twins: np.ndarray
    spelled: np.ndarray

    @property
    def things(self) -> np.ndarray:
        """Whether a cell shows a thing."""
        return self.colour != NONE


def cell_labels(scene: Scene, side: int, grid: int) -> Cells:
    """The labels of a scene that is drawn with `side` pixels.

    Returns:
        Arrays `[grid * grid]`, but `box` `[grid * grid, 4]` and `spelled`
        `[grid * grid, LONGEST_WORD]`.
    """
    centres = (np.arange(grid) + 0.5) * (side / grid)
    shown = np.full((grid, grid), _CLASS_INDEX[background_of(scene.background).phrase])
    colour, letter = np.full((grid, grid), NONE), np.full((grid, grid), NONE)
    box = np.zeros((grid, grid, 4), np.float32)
    centre = np.zeros((grid, grid), bool)
    alike, twins = np.full((grid, grid), NONE), np.full((grid, grid), NONE)
    spelled = np.full((grid, grid, LONGEST_WORD), NONE)
    for thing in scene.things:
        drawn, (left, top) = placed(thing, side)
        rows = np.flatnonzero((centres >= top) & (centres < top + drawn.height))
        columns = np.flatnonzero((centres >= left) & (centres < left + drawn.width))
        at = np.ix_(rows, columns)
        shown[at] = _CLASS_INDEX[thing.kind]
        colour[at] = COLOURS.index(thing.colour)
        edges = np.array((left, top, left + drawn.width, top + drawn.height))
        x, y = centres[columns][None, :], centres[rows][:, None]
        offsets = [(edge - m) / side for edge, m in zip(edges, (x, y, x, y), strict=True)]
        box[at] = np.stack(np.broadcast_arrays(*offsets), axis=-1)
        middle = (left + drawn.width / 2, top + drawn.height / 2)
        column, row = (min(grid - 1, int(value * grid / side)) for value in middle)
        centre[row, column] = True
        alike[at] = scene.count(thing.kind)
        twins[at] = scene.count(thing.kind, thing.colour)
        if thing.kind == WORD:
            spelled[at] = _spelled(thing.text)
            along = (centres[columns] - left) / drawn.width
            letter[at] = [LETTERS.index(one) for one in _letters(thing, along)]
    return Cells(
        shown.ravel(),
        colour.ravel(),
        letter.ravel(),
        box.reshape(-1, 4),
        centre.ravel(),
        alike.ravel(),
        twins.ravel(),
        spelled.reshape(-1, LONGEST_WORD),
    )


def position_codes(grid: int) -> np.ndarray:
    """Position codes `[grid * grid, 4 * len(WAVES)]`: sines and cosines of each cell's centre.

    Codes of near cells have a large dot product, by which attention finds a position (arXiv
    1706.03762, 3.5). Without this loss the tower's tokens would leave positions out.
    """
    centres = (np.arange(grid) + 0.5) / grid
    angles = 2 * np.pi * np.array(WAVES) * centres[:, None]
    waves = np.concatenate((np.sin(angles), np.cos(angles)), axis=1)
    down, across = np.repeat(waves, grid, axis=0), np.tile(waves, (grid, 1))
    return np.concatenate((down, across), axis=1).astype(np.float32)


def _spelled(text: str) -> np.ndarray:
    indices = [LETTERS.index(one) for one in text[:LONGEST_WORD]]
    return np.array(indices + [len(LETTERS)] * (LONGEST_WORD - len(indices)))


def _letters(word: Thing, along: np.ndarray) -> list[str]:
    """The letters at some parts of a word's width; a slight rotation does not matter."""
    font = fonts.letters(word.font, 64)
    ends = np.array([font.getlength(word.text[: i + 1]) for i in range(len(word.text))])
    return [word.text[i] for i in np.searchsorted(ends[:-1] / ends[-1], along, side="right")]
