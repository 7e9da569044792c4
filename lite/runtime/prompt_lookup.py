"""Several tokens a run: prompt lookup, where the answer repeats what the context holds already.

Contract: `PromptLookup.logits` gives what `Decoder.logits` gives for a sequence that grows by one
token from call to call, so whoever samples from it draws the same tokens, greedy or not, with the
same random numbers: a guessed token counts only if it is the one that was drawn anyway. Only
rounding may differ, as it does between a prompt at once and in parts. Guessing costs a look into a
dictionary; running the guesses costs time, so they run only where that is expected to pay by what
runs took so far on this machine and by how often guesses were right, which is known for those that
did not run, too.

Source: prompt lookup decoding (github.com/apoorvumang/prompt-lookup-decoding), with the rule for
accepting a guess of speculative sampling (arXiv 2302.01318) for guesses without a distribution.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence

import numpy as np

from lite.runtime.decoder import Decoder
from lite.runtime.vision import ImageFeatures

# Lengths of the n-grams that are looked up, the longest first.
NGRAMS = (3, 2)
# Guessed tokens that may run behind the last certain one.
DRAFTS = (3, 7, 15)
# What a further token of a run is taken to cost before one was measured: 4 tokens cost 1.2 times 1
# where weights are read once for all (measured with 8-bit weights on an AVX-512 CPU).
FURTHER_TOKEN = 0.07
# Seconds of a run of one token below which guesses never run: nobody reads as fast, and the same
# bits at each time are worth more (runs of one and of many tokens round differently, and how many
# are run depends on measured times).
MIN_RUN_SECONDS = 0.002
# The cost is the least of the last few runs, because it grows with the context ...
KEPT_RUNS = 9
# ... and not believed before as many were made.
MIN_RUNS = 3
# Right and wrong guesses that an answer starts with.
PRIOR_GUESSES = (2.0, 1.0)
# What a guess still counts after each further one.
DECAY = 0.96
# Tokens in the time of one from which guesses run: estimates are not exact.
MIN_SPEEDUP = 1.05


class RunCosts:
    """How long runs take by their number of tokens; shared by all answers of a model."""

    def __init__(self) -> None:
        self._seconds: dict[int, deque[float]] = {}

    def record(self, tokens: int, seconds: float) -> None:
        """A run of so many tokens took so long."""
        self._seconds.setdefault(tokens, deque(maxlen=KEPT_RUNS)).append(seconds)

    def ratio(self, tokens: int) -> float:
        """The cost of a run of so many tokens, over that of one; infinite where none is wanted."""
        one = self._least(1)
        if one is None or one < MIN_RUN_SECONDS:
            return math.inf
        if (measured := self._least(tokens)) is not None:
            return measured / one
        return 1 + max(self._further(one, tokens), FURTHER_TOKEN) * (tokens - 1)

    def _further(self, one: float, tokens: int) -> float:
        """What each further token cost in the longest shorter run that was measured."""
        for n in sorted(self._seconds, reverse=True):
            if 1 < n < tokens and (measured := self._least(n)) is not None:
                return (measured / one - 1) / (n - 1)
        return 0.0

    def _least(self, tokens: int) -> float | None:
        """The quickest of the last runs: what else the machine did is in the others."""
        runs = self._seconds.get(tokens, ())
        return min(runs) if len(runs) >= MIN_RUNS else None


class PromptLookup:
    """Logits of one growing sequence.

    Attributes:
        runs: runs of the decoder so far.
    """

    def __init__(self, decoder: Decoder, costs: RunCosts, guessing: bool = True) -> None:
        """
        Args:
            decoder: that runs.
            costs: of its runs.
            guessing: False runs one token at a time.
        """
        self._decoder = decoder
        self._costs = costs
        self._guessing = guessing
        self._right, self._wrong = PRIOR_GUESSES
        self.runs = 0
        self.restart()

    def restart(self) -> None:
        """The next call is for another sequence."""
        self._index: dict[tuple[int, ...], int] = {}  # n-gram -> where it last went on
        self._indexed = 0
        # Guessed to follow the first `_guessed_at` tokens; with logits after each if they ran.
        self._guess: list[int] = []
        self._guessed_at = 0
        self._rows: np.ndarray | None = None

    def logits(self, ids: list[int], images: Sequence[ImageFeatures]) -> np.ndarray:
        """Logits after the last token, float32 `[vocab]`; the caller may change them.

        Args:
            ids: those of the last call and one token more.
            images: as for `Decoder.logits`, the same at each call.
        """
        right = self._settle(ids)
        if right and self._rows is not None:
            return np.asarray(self._rows[right])
        guess = self._look_up(ids) if self._guessing else []
        draft = guess[: self._affordable(min(len(guess), self._decoder.context - len(ids)))]
        start = time.perf_counter()
        rows = self._decoder.ahead(ids, images, draft)
        self._costs.record(len(rows), time.perf_counter() - start)
        self.runs += 1
        # A guess that does not run is still compared, by its first token: that costs nothing.
        self._guess, self._guessed_at = draft or guess[:1], len(ids)
        self._rows = rows if draft else None
        return np.asarray(rows[0])

    def _settle(self, ids: list[int]) -> int:
        """How many guessed tokens proved right so far; 0 once one is wrong, or there is none."""
        right = len(ids) - self._guessed_at
        if not 0 < right <= len(self._guess):
            return 0
        correct = ids[-1] == self._guess[right - 1]
        self._right = DECAY * self._right + correct
        self._wrong = DECAY * self._wrong + (not correct)
        if not correct:
            self._guess = []
            return 0
        return right

    def _affordable(self, room: int) -> int:
        """How many of at most `room` guesses to run: what gives most tokens for the time, or 0."""
        p = min(self._right / (self._right + self._wrong), 0.99)
        best, most = 0, MIN_SPEEDUP
        for tokens in DRAFTS:
            if tokens > room:
                break
            expected = (1 - p ** (tokens + 1)) / (1 - p)  # tokens that the run gives on average
            rate = expected / self._costs.ratio(1 + tokens)
            if rate > most:
                best, most = tokens, rate
        return best

    def _look_up(self, ids: list[int]) -> list[int]:
        """What followed the longest n-gram at the end where it stood last; indexes what is new."""
        found = None
        for end in range(self._indexed + 1, len(ids) + 1):
            found = None
            for n in NGRAMS:
                if end >= n:
                    key = tuple(ids[end - n : end])
                    found = self._index.get(key) if found is None else found
                    self._index[key] = end
        self._indexed = len(ids)
        if found is None:
            return []
        copied = ids[found : found + DRAFTS[-1]]
        while len(copied) < DRAFTS[-1]:  # at the end of the sequence the copy goes on with itself
            copied += copied
        return self._decoder.ordinary(copied[: DRAFTS[-1]])
