"""Data sets mixed by weight into one endless stream.

Contract: `Mixture[position]` is a pure function of the position, its sets, the seed and the label,
at a cost that does not depend on the position: a run goes on anywhere without reading what came
before. In every epoch each set has exactly its share.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from qlora.data.conversation import Conversation
from qlora.data.shuffle import Permutation


@dataclass(frozen=True)
class MixReport:
    """What mixing samples with and without images does: a sentence, and perhaps a warning."""

    sentence: str
    warning: str = ""


class Source(Protocol):
    """What a mixture needs of a data set (`qlora.data.dataset.DataSet`)."""

    @property
    def name(self) -> str: ...

    @property
    def weight(self) -> float: ...

    def conversation(self, index: int, epoch: int) -> Conversation: ...


class Mixture:
    """An endless sequence of (conversation, name of its set).

    An epoch gives a set of n records and weight w round(w * n) samples, at least one, in an order
    of the epoch's own. A set goes through all its records, in an order of each pass's own, before
    it shows one again: with weight 0.5 a pass takes two epochs, with weight 2 half an epoch.

    Attributes:
        sets: the data sets, each with the indices of its records that are used.
        counts: how many samples of an epoch each set has.
    """

    def __init__(self, sets: Sequence[tuple[Source, Sequence[int]]], seed: int, label: str) -> None:
        """
        Args:
            sets: data sets, each with the indices of its records to use.
            seed: of all orders.
            label: keeps streams of one seed apart.
        """
        self.sets = [(source, indices) for source, indices in sets if len(indices)]
        if not self.sets:
            raise ValueError("a mixture needs at least one record")
        self.counts = [max(1, round(s.weight * len(indices))) for s, indices in self.sets]
        self._ends = list(accumulate(self.counts))
        self._key = (seed, label)

    @property
    def epoch_length(self) -> int:
        """Samples in one epoch."""
        return self._ends[-1]

    @property
    def shares(self) -> list[float]:
        """The part of the stream that each set makes; their sum is 1."""
        return [count / self.epoch_length for count in self.counts]

    def __getitem__(self, position: int) -> tuple[Conversation, str]:
        """The sample at a position.

        Raises:
            IndexError: the position is negative.
            BadRecord: as the data set does.
        """
        if position < 0:
            raise IndexError(f"position {position} is negative")
        number, index, passed = self.locate(position)
        source = self.sets[number][0]
        return source.conversation(index, passed), source.name

    def locate(self, position: int) -> tuple[int, int, int]:
        """Number of the set at a position, its record, and the passes over the set before."""
        epoch, place = divmod(position, self.epoch_length)
        place = Permutation(self.epoch_length, *self._key, "places", epoch)[place]
        number = bisect_right(self._ends, place)
        within = place - (self._ends[number] - self.counts[number])
        indices = self.sets[number][1]
        passed, offset = divmod(epoch * self.counts[number] + within, len(indices))
        # By number: two sets may have one name.
        order = Permutation(len(indices), *self._key, "records", number, passed)
        return number, indices[order[offset]], passed
