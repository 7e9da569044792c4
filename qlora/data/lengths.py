"""How long answers are: words counted in any script, and distributions of them.

Contract: plain arithmetic over counts; which answers there are and what each one weighs is the
caller's business.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

# An answer below so many words is called short.
SHORT = 5
# Lower ends of the histogram's bins, in words.
BINS = (0, 2, 5, 10, 20, 50, 100, 200)
BIN_NAMES = ("1", "2-4", "5-9", "10-19", "20-49", "50-99", "100-199", "200+")

# Scripts that set no spaces between words count by the character: kana, Han, Thai.
_NO_SPACES = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_NO_SPACES}]|(?:(?![{_NO_SPACES}])\w)(?:(?![{_NO_SPACES}])\S)*")


@dataclass(frozen=True)
class Lengths:
    """A distribution of answer lengths.

    Attributes:
        words, tokens: 10th percentile, median and 90th percentile.
        one_word: share of answers of at most one word.
        short: share of answers under `SHORT` words.
        histogram: share of answers in each of `BINS`.
    """

    words: tuple[int, int, int]
    tokens: tuple[int, int, int]
    one_word: float
    short: float
    histogram: tuple[float, ...]


def count_words(text: str) -> int:
    """Words: runs without spaces that begin with a letter or digit, after any punctuation."""
    return len(_WORD.findall(text))


def lengths_of(counted: np.ndarray, weights: np.ndarray) -> Lengths:
    """Statistics of answers.

    Args:
        counted: `[n, 2]` or wider, n > 0: words and tokens of each answer.
        weights: `[n]`, what each answer weighs; they need not sum to 1.
    """
    weights = weights / weights.sum()
    words = counted[:, 0]
    bins = np.digitize(words, BINS) - 1
    return Lengths(
        words=_percentiles(words, weights),
        tokens=_percentiles(counted[:, 1], weights),
        one_word=float(weights[words <= 1].sum()),
        short=float(weights[words < SHORT].sum()),
        histogram=tuple(np.bincount(bins, weights, len(BINS)).tolist()),
    )


def _percentiles(values: np.ndarray, weights: np.ndarray) -> tuple[int, int, int]:
    """The 10th, 50th and 90th: the smallest value that so much weight does not exceed."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    # A sum of weights may end a rounding error below its share.
    places = np.searchsorted(reached, np.array((0.1, 0.5, 0.9)) - 1e-9)
    low, middle, high = values[order][np.minimum(places, len(values) - 1)].astype(int).tolist()
    return low, middle, high


def percent(share: float) -> str:
    """A share as people read it: one decimal below ten per cent."""
    return f"{100 * share:.0f} %" if share >= 0.0995 or share == 0 else f"{100 * share:.1f} %"
