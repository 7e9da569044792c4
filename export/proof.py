"""One line of the chain of proofs that an export prints and the manifest keeps, and its measure."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Proof:
    """A comparison and its outcome.

    Attributes:
        step: what was examined.
        against: what it was compared with.
        measure: what the value is.
        value: the figure.
        limit: the largest value that holds; None where the figure is only reported.
    """

    step: str
    against: str
    measure: str
    value: float
    limit: float | None

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit (a NaN is not)."""
        return self.limit is None or self.value <= self.limit

    def refusal(self) -> str:
        """The sentence for a comparison that does not hold."""
        return (
            f"The export is refused: {self.step} against {self.against} has a {self.measure}"
            f" of {self.value:.3g}, over the limit of {self.limit:.3g}."
        )

    def to_json(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {**asdict(self), "holds": self.holds}


def kl_divergence(reference: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """KL(reference || logits) in nats for each row of `[T, vocab]`."""
    p, q = (_log_softmax(x.astype(np.float64)) for x in (reference, logits))
    return (np.exp(p) * (p - q)).sum(-1)


def _log_softmax(x: np.ndarray) -> np.ndarray:
    shifted = x - x.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
