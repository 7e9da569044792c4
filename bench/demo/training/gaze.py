"""Where a token should look, to say the next one: a teacher for cross-attention.

Contract: a text about a scene and the truth of its cells in, the cells that each piece of the text
is about out. A name is about the things that bear it, the rest of an answer about what was asked
for. Where that is not in the picture the background is looked at, which tells that it is not: for
each question the two then differ in what attention brings back, not in what it fails to find.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from bench.demo.kinds import KINDS
from bench.demo.reading import mentions
from bench.demo.training.cells import COLOURS, NONE, SHOWN, Cells
from bench.demo.world import WORD

# How the written word is asked for, and how it is told.
_ASKED_WORD = re.compile(r"\b(sign|word|text|written)\b")
_TOLD_WORD = re.compile(r'"[^"]*"|\b[Tt]he word\b')
_SENTENCE = re.compile(r"[^.?!]+[.?!]?")


def gaze(asked: str, told: str, spans: Sequence[tuple[int, int]], truth: Cells) -> np.ndarray:
    """The cells that pieces are about.

    Args:
        asked: the question, or nothing.
        told: the answer or the caption.
        spans: of each piece, its first character in `told` and the one after its last.
        truth: what the cells show.

    Returns:
        bool `[len(spans), cells]`; a row without any cell where no place is more right than others.
    """
    wanted = _of_question(asked, truth) if asked else None
    rows = np.zeros((len(told), len(truth.shown)), bool)
    for sentence in _SENTENCE.finditer(told):
        start, end = sentence.span()
        named = [
            (start + first, start + last, found)
            for first, last, found in _named(sentence[0], truth)
            if found.any()
        ]
        if wanted is not None:
            rows[start:end] = wanted
        elif named and (asked or (start and len(named) == 1)):
            # A caption's first sentence lists, those after it tell of one thing each.
            rows[start:end] = np.any([found for *_, found in named], axis=0)
        for first, last, found in named:
            rows[first:last] = found
    # A piece that begins with a space says what comes after it.
    return np.stack([rows[min(last, len(told)) - 1] for _, last in spans])


def _of_question(asked: str, truth: Cells) -> np.ndarray | None:
    """The cells of what a question names; the background if they are none; None without a name."""
    named = [found for *_, found in _named(asked, truth)]
    if _ASKED_WORD.search(asked):
        named.append(truth.shown == SHOWN.index(WORD))
    if not named:
        return None
    found = np.any(named, axis=0)
    return found if found.any() else truth.colour == NONE


def _named(text: str, truth: Cells) -> list[tuple[int, int, np.ndarray]]:
    """Where things are named, and the cells that show them."""
    found = []
    for start, end, kind, colour in mentions(text):
        shows = truth.shown == SHOWN.index(kind)
        if colour and len(KINDS[kind].looks) > 1:
            shows &= truth.colour == COLOURS.index(colour)
        found.append((start, end, shows))
    words = truth.shown == SHOWN.index(WORD)
    return found + [(*match.span(), words) for match in _TOLD_WORD.finditer(text)]
