"""Targets of cross-attention: the cells that each piece of a text is about.

Contract: from a text about a scene and the labels of its cells to cells for each piece of the text.
A name is about the things that have it, the rest of an answer about what the question names. Where
that is not in the picture, the target is the background: attention then returns something different
for "yes" and "no", instead of nothing for "no".
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from bench.demo.answer_terms import mention_spans
from bench.demo.kinds import KINDS
from bench.demo.training.cells import CELL_CLASSES, COLOURS, NONE, Cells
from bench.demo.world import WORD

# How questions and answers refer to the written word.
_QUESTION_WORD = re.compile(r"\b(sign|word|text|written)\b")
_ANSWER_WORD = re.compile(r'"[^"]*"|\b[Tt]he word\b')
_SENTENCE = re.compile(r"[^.?!]+[.?!]?")


def attended_cells(
    question: str, answer: str, spans: Sequence[tuple[int, int]], truth: Cells
) -> np.ndarray:
    """The cells that pieces are about.

    Args:
        question: empty for a caption.
        answer: or the caption.
        spans: of each piece, its first character in `answer` and the one after its last.
        truth: labels of the cells.

    Returns:
        bool `[len(spans), cells]`; no cell in a row where none is better than others.
    """
    wanted = _of_question(question, truth) if question else None
    rows = np.zeros((len(answer), len(truth.shown)), bool)
    for sentence in _SENTENCE.finditer(answer):
        start, end = sentence.span()
        named = [
            (start + first, start + last, found)
            for first, last, found in _named(sentence[0], truth)
            if found.any()
        ]
        if wanted is not None:
            rows[start:end] = wanted
        elif named and (question or (start and len(named) == 1)):
            # A caption's first sentence lists things, each later one is about one of them.
            rows[start:end] = np.any([found for *_, found in named], axis=0)
        for first, last, found in named:
            rows[first:last] = found
    # A piece that begins with a space belongs to the word after it.
    return np.stack([rows[min(last, len(answer)) - 1] for _, last in spans])


def _of_question(question: str, truth: Cells) -> np.ndarray | None:
    """The cells of what a question names; the background if they are none; None without a name."""
    named = [found for *_, found in _named(question, truth)]
    if _QUESTION_WORD.search(question):
        named.append(truth.shown == CELL_CLASSES.index(WORD))
    if not named:
        return None
    found = np.any(named, axis=0)
    return found if found.any() else truth.colour == NONE


def _named(text: str, truth: Cells) -> list[tuple[int, int, np.ndarray]]:
    """Spans that name things, and the cells that show these."""
    found = []
    for start, end, kind, colour in mention_spans(text):
        shows = truth.shown == CELL_CLASSES.index(kind)
        if colour and len(KINDS[kind].looks) > 1:
            shows &= truth.colour == COLOURS.index(colour)
        found.append((start, end, shows))
    words = truth.shown == CELL_CLASSES.index(WORD)
    return found + [(*match.span(), words) for match in _ANSWER_WORD.finditer(text)]
