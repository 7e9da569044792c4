"""What each token's loss weighs, and what a step's weighted losses are divided by.

Contract: the one place that knows how losses add up. The loss of rows is the sum of their weighted
token losses divided by the sum of their `count`, whichever rows, steps or processes they are in.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from qlora.data.encode import IGNORE, Sample

SAMPLE, TOKEN = "sample", "token"


class Counted(Protocol):
    """What `Weighting.count` needs of a row (`qlora.data.rows.Row`)."""

    @property
    def samples(self) -> int: ...

    @property
    def trained(self) -> int: ...


class Weighting:
    """A mean over samples or over tokens.

    Attributes:
        unit: `sample` gives each sample the weight 1, shared by its trained tokens (the mean of
            the original, which has one sample in a batch); `token` gives each token the weight 1.
    """

    def __init__(self, unit: str) -> None:
        """Raises ValueError for another unit."""
        if unit not in (SAMPLE, TOKEN):
            raise ValueError(f"unit is sample or token, not {unit!r}")
        self.unit = unit

    def weights(self, sample: Sample) -> np.ndarray:
        """The weights of one sample's positions, float32 `[T]`: 0 where nothing is trained.

        What a record makes an answer count multiplies them, and leaves `count` as it is: an answer
        of weight 0.5 gives half of its loss.
        """
        weights = (sample.targets != IGNORE).astype(np.float32) * sample.weights
        return weights if self.unit == TOKEN else weights / max(1, sample.trained)

    def count(self, row: Counted) -> int:
        """How many samples, or trained tokens, the losses of a row are the mean over."""
        return row.trained if self.unit == TOKEN else row.samples
