"""One line of the chain of proofs that an export prints and the manifest keeps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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

    def to_json(self) -> dict[str, Any]:
        """As the manifest keeps it."""
        return {**asdict(self), "holds": self.holds}
