"""Choosing the next token from its logits.

Contract: numpy only, one row at a time, deterministic for a seed; temperature 0 is exactly argmax.
Filters apply in the customary order: repetition penalty, temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lite.errors import BadInput


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen.

    Attributes:
        temperature: 0 takes the likeliest token; above it, logits are divided by it.
        top_k: keep the k likeliest; 0 keeps all.
        top_p: keep the likeliest until their probabilities sum to this (arXiv 1904.09751).
        min_p: drop tokens below this share of the likeliest one's probability (arXiv 2407.01082).
        repetition_penalty: divide positive and multiply negative logits of tokens that are in the
            context already (CTRL, arXiv 1909.05858); 1 changes nothing.
        seed: of the random numbers; None draws a fresh one.

    Raises:
        BadInput: a value is outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        ranges = {
            "temperature": (0.0, 100.0),
            "top_k": (0, 2**31),
            "top_p": (0.0, 1.0),
            "min_p": (0.0, 1.0),
            "repetition_penalty": (0.01, 100.0),
        }
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:  # NaN included
                raise BadInput(f"{name} is {value}; give a value from {low} to {high}.")
        for name in ("top_k", "seed"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | np.integer) and value >= 0):
                raise BadInput(f"{name} is {value}; give a whole number from 0.")

    def changed(self, fields: dict[str, Any]) -> Sampling:
        """These settings with some fields replaced.

        Raises:
            BadInput: a field is unknown, of the wrong type, or outside its range.
        """
        try:
            return replace(self, **fields)
        except TypeError as error:
            known = ", ".join(vars(self))
            raise BadInput(
                f"An argument is unknown or of the wrong type ({error}); beside those of Chat.ask "
                f"there are {known}."
            ) from None


class Sampler:
    """Draws tokens with the settings of one answer."""

    def __init__(self, settings: Sampling) -> None:
        self.settings = settings
        self._random = np.random.default_rng(settings.seed)

    @property
    def repeatable(self) -> bool:
        """Whether the tokens are drawn, and the same ones are wanted each time."""
        return self.settings.seed is not None and self.settings.temperature > 0

    def __call__(self, logits: np.ndarray, context: Sequence[int] | np.ndarray = ()) -> int:
        """The next token.

        Args:
            logits: float `[vocab]`.
            context: ids so far, for the repetition penalty.
        """
        s = self.settings
        if s.repetition_penalty != 1.0:
            logits = _penalized(logits, context, s.repetition_penalty)
        if s.temperature == 0.0:
            return int(logits.argmax())
        order = np.argsort(-logits, kind="stable")
        probabilities = _softmax(logits[order].astype(np.float64), s.temperature)
        keep = _kept(probabilities, s)
        probabilities = probabilities[:keep] / probabilities[:keep].sum()
        return int(order[self._random.choice(keep, p=probabilities)])


def log_probability(logits: np.ndarray, token: int) -> float:
    """Natural log of the model's own probability of `token`, before any sampling filter."""
    shifted = logits.astype(np.float64) - logits.max()
    return float(shifted[token] - np.log(np.exp(shifted).sum()))


def _kept(probabilities: np.ndarray, s: Sampling) -> int:
    """How many of the descending `probabilities` pass top-k, top-p and min-p; at least one."""
    keep = min(s.top_k or probabilities.size, probabilities.size)
    if s.top_p < 1.0:
        total = np.cumsum(probabilities[:keep] / probabilities[:keep].sum())
        keep = min(keep, int(np.searchsorted(total, s.top_p)) + 1)
    if s.min_p > 0.0:
        keep = min(keep, int((probabilities >= s.min_p * probabilities[0]).sum()))
    return max(keep, 1)


def _penalized(
    logits: np.ndarray, context: Sequence[int] | np.ndarray, penalty: float
) -> np.ndarray:
    used = np.unique(np.asarray(context, dtype=np.int64))
    used = used[used < logits.size]
    logits = logits.copy()
    logits[used] = np.where(logits[used] > 0, logits[used] / penalty, logits[used] * penalty)
    return logits


def _softmax(x: np.ndarray, temperature: float) -> np.ndarray:
    # Shifted before it is divided: the largest stays 0 for the smallest of temperatures.
    with np.errstate(over="ignore"):
        exps = np.exp((x - x.max()) / temperature)
    return exps / exps.sum()
