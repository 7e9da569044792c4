"""The data of a recipe, opened: what is trained on, and what is held out of it.

Contract: everything that can be wrong with the data, short of images that cannot be decoded, is
found here, before a model is loaded. The same recipe and files give the same data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path

from lite.errors import BadInput
from qlora.data.conversation import Conversation
from qlora.data.dataset import DataSet
from qlora.data.holdout import Group, Member, groups_by_image, hold_out, singles
from qlora.data.lengths import percent
from qlora.data.mixture import MixReport, Mixture
from qlora.families.models import TINY
from qlora.recipes.schema import PAIRED, Recipe, TrainingSettings
from qlora.tiny.data import write_data

# The kinds of samples: the gated blocks run for a row with images, and not for one without.
IMAGES, TEXT = "images", "text"
# The one stream in which both kinds have their natural proportion.
MIXED = "mixed"
# Records that an epoch shows more often are learnt by heart before the others are learnt.
_MANY_SHOWINGS = 4.0

Progress = Callable[[str, int, int], None]


@dataclass
class Data:
    """The data of a run.

    Attributes:
        sets: as opened, with what was wrong in them.
        kinds: by kind, the samples to train on; a kind that no set has is missing.
        streams: what a step draws from: the kinds, or where they are mixed in proportion, one
            stream of both.
        held_out: by kind, each conversation with the name of its data set.
        held_out_digest: tells one choice of held-out samples from another.
        grouped: whether records that share an image made a difference to that choice.
        notes: sentences about what is not as the recipe asks.
    """

    sets: list[DataSet]
    kinds: dict[str, Mixture]
    streams: dict[str, Mixture]
    held_out: dict[str, list[tuple[Conversation, str]]]
    held_out_digest: str = ""
    grouped: bool = False
    notes: list[str] = field(default_factory=list)

    def steps(self, settings: TrainingSettings) -> int:
        """Optimizer steps of a run: an epoch is one pass over the first stream."""
        if settings.steps is not None:
            return settings.steps
        first = next(iter(self.streams.values()))
        samples = settings.epochs * first.epoch_length
        return max(1, int(samples // (settings.batch * settings.accumulate)))

    def drawn(self, settings: TrainingSettings) -> dict[str, float]:
        """Samples of each kind in one accumulation step, on average."""
        if MIXED not in self.streams:
            return {k: float(n) for k, n in batches(settings, self.streams).items()}
        total = sum(one.epoch_length for one in self.kinds.values())
        return {k: settings.batch * one.epoch_length / total for k, one in self.kinds.items()}

    def repeats(self, settings: TrainingSettings) -> dict[str, float]:
        """How often an epoch shows each sample of a kind."""
        drawn = self.drawn(settings)
        first = next(iter(self.streams))
        epoch = self.streams[first].epoch_length / (
            settings.batch if first == MIXED else drawn[first]
        )
        return {k: epoch * drawn[k] / one.epoch_length for k, one in self.kinds.items()}

    def mix_report(self, settings: TrainingSettings) -> MixReport | None:
        """What the mix of the two kinds does; None where there is one kind."""
        if len(self.kinds) < 2:
            return None
        if MIXED in self.streams:
            total = sum(one.epoch_length for one in self.kinds.values())
            share = percent(self.kinds[IMAGES].epoch_length / total)
            return MixReport(
                f"Mix proportional: an epoch shows each of {total:,} samples once; {share} of them "
                f"have images."
            )
        taken, repeats = batches(settings, self.streams), self.repeats(settings)
        pictured, plain = (self.kinds[kind].epoch_length for kind in (IMAGES, TEXT))
        sentence = (
            f"Mix paired: {taken[IMAGES]} of {pictured:,} samples with images go with "
            f"{taken[TEXT]} of {plain:,} without, so an epoch shows each of these "
            f"{repeats[TEXT]:.2g} times."
        )
        if repeats[TEXT] <= _MANY_SHOWINGS:
            return MixReport(sentence)
        return MixReport(
            sentence,
            f"data.mix=paired shows each sample without images {repeats[TEXT]:.0f} times in an "
            f"epoch; set data.mix=proportional, or add such samples.",
        )


def batches(settings: TrainingSettings, streams: Mapping[str, Mixture]) -> dict[str, int]:
    """Samples that one accumulation step takes of each stream."""
    found = dict.fromkeys(streams, settings.batch)
    if len(found) > 1:
        found[TEXT] = settings.text_batch or settings.batch
    return found


def open_data(recipe: Recipe, progress: Progress = lambda what, done, total: None) -> Data:
    """Open and check all data sets.

    Args:
        recipe: its `data` section is used.
        progress: called with (data set, records seen, records) during the check.

    Raises:
        BadInput: a set cannot be used, see `qlora.data.dataset`.
    """
    sets = _open_sets(recipe, progress)
    groups: dict[str, list[Group]] = {
        IMAGES: groups_by_image(sets),
        TEXT: [g for number, one in enumerate(sets) for g in singles(number, one.without_images)],
    }
    if not any(groups.values()):
        raise BadInput(
            f"The data below {recipe.data.root} holds no record that can be trained on; look at "
            f"it with --audit."
        )
    count, seed = recipe.data.holdout, recipe.training.seed
    held = {kind: hold_out(found, count, seed) for kind, found in groups.items() if found}
    kept = {kind: _kept(groups[kind], held[kind]) for kind in held}
    kinds = {kind: _mixture(sets, kept[kind], seed, kind) for kind in held}
    streams = kinds
    if len(kinds) > 1 and recipe.data.mix != PAIRED:
        streams = {MIXED: _mixture(sets, sorted(kept[IMAGES] + kept[TEXT]), seed, MIXED)}
    return Data(
        sets,
        kinds,
        streams,
        {k: [(sets[n].conversation(i, 0), sets[n].name) for n, i in held[k]] for k in held},
        blake2b(repr(sorted(held.items())).encode(), digest_size=16).hexdigest(),
        bool(count) and any(len(group) > 1 for group in groups[IMAGES]),
        [
            f"{len(found)} samples ({kind}) are held out instead of data.holdout={count}: those "
            f"that share an image stay together."
            for kind, found in held.items()
            if len(found) != count and any(len(group) > 1 for group in groups[kind])
        ],
    )


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


def _kept(groups: list[Group], held: list[Member]) -> list[Member]:
    without = set(held)
    return sorted(member for group in groups for member in group if member not in without)


def _mixture(sets: list[DataSet], members: list[Member], seed: int, label: str) -> Mixture:
    indices: dict[int, list[int]] = {}
    for number, index in members:
        indices.setdefault(number, []).append(index)
    return Mixture([(sets[number], found) for number, found in indices.items()], seed, label)
