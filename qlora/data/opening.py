"""The data of a recipe, opened: what is trained on, and what is held out of it.

Contract: everything that can be wrong with the data, short of images that cannot be decoded, is
found here, before a model is loaded. The same recipe and files give the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lite.errors import BadInput
from qlora.data.conversation import Conversation
from qlora.data.dataset import DataSet
from qlora.data.mixture import Mixture
from qlora.data.shuffle import random_of
from qlora.families.models import TINY
from qlora.recipes.schema import Recipe, TrainingSettings
from qlora.tiny.data import write_data

# The kinds of samples: the gated blocks run for a row with images, and not for one without.
IMAGES, TEXT = "images", "text"

Progress = Callable[[str, int, int], None]


@dataclass
class Data:
    """The data of a run.

    Attributes:
        sets: as opened, with what was wrong in them.
        streams: by kind, without the held-out samples; a kind that no set has is missing.
        held_out: by kind, each conversation with the name of its data set.
    """

    sets: list[DataSet]
    streams: dict[str, Mixture]
    held_out: dict[str, list[tuple[Conversation, str]]]

    def steps(self, settings: TrainingSettings) -> int:
        """Optimizer steps of a run: an epoch is one pass over the samples with images."""
        if settings.steps is not None:
            return settings.steps
        first = next(iter(self.streams.values()))
        samples = settings.epochs * first.epoch_length
        return max(1, int(samples // (settings.batch * settings.accumulate)))


def open_data(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> Data:
    """Open and check all data sets.

    Args:
        recipe: its `data` section is used.
        progress: called with (data set, records seen, records) during the check.

    Raises:
        BadInput: a set cannot be used, see `qlora.data.dataset`.
    """
    sets = _open_sets(recipe, progress)
    streams, held_out = {}, {}
    for kind in (IMAGES, TEXT):
        parts = [(s, s.with_images if kind == IMAGES else s.without_images) for s in sets]
        parts = [(s, indices) for s, indices in parts if len(indices)]
        if not parts:
            continue
        kept, held = _hold_out(parts, recipe.data.holdout, recipe.training.seed)
        streams[kind] = Mixture(kept, recipe.training.seed, kind)
        held_out[kind] = [(s.conversation(i, 0), s.name) for s, i in held]
    if not streams:
        raise BadInput(
            f"The data below {recipe.data.root} holds no record that can be trained on; look at "
            f"it with --audit."
        )
    return Data(sets, streams, held_out)


def _open_sets(recipe: Recipe, progress: Progress) -> list[DataSet]:
    settings = recipe.data
    root, given = Path(settings.root), settings.sets
    if settings.name == TINY:
        root = Path(recipe.output) / "data"
        given = write_data(root)
    if not root.is_dir():
        raise BadInput(f"There is no data folder {root}; give it as data.root.")
    return [
        DataSet.open(
            root,
            one.path,
            format=one.type,
            images=one.images,
            name=one.called,
            weight=one.weight,
            sample=one.sample,
            seed=recipe.training.seed,
            missing_images=settings.missing_images,
            bad_records=settings.bad_records,
            progress=partial(progress, one.path),
        )
        for one in given
    ]


def _hold_out(
    parts: list[tuple[DataSet, Sequence[int]]], count: int, seed: int
) -> tuple[list[tuple[DataSet, list[int]]], list[tuple[DataSet, int]]]:
    """Split off `count` records, shared between the sets by their size."""
    total = sum(len(indices) for _, indices in parts)
    if count * 2 > total:
        raise BadInput(
            f"data.holdout={count} would leave too little of {total} usable records; lower it."
        )
    kept, held = [], []
    for number, (data_set, indices) in enumerate(parts):
        share = round(count * len(indices) / total)
        chosen = set(random_of(seed, "holdout", number).sample([*indices], share))
        kept.append((data_set, [i for i in indices if i not in chosen]))
        held += [(data_set, i) for i in sorted(chosen)]
    return [(s, indices) for s, indices in kept if indices], held
