"""What one accumulation step trains on: a row of samples with images, a row without, or both.

Contract: `Feed[n]` is a pure function of n and the recipe, so a run continues at any step without
reading what came before it, on any number of processes. It runs in data workers; what cannot be
trained on comes back as counts, and what must stop the run as a sentence, never as an exception.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch.utils.data import DataLoader, Dataset, Sampler

from lite.bundle.injection import Injection
from lite.errors import BadInput
from lite.image.preprocessing import Preprocessing
from lite.runtime.feature_store import FeatureStore
from lite.text.template import Template
from lite.text.tokenizer import Tokenizer
from qlora.data.conversation import BadRecord, Conversation, ImageRef
from qlora.data.encode import Sample, encode, prompt_ids
from qlora.data.mixture import Mixture
from qlora.data.opening import IMAGES, TEXT, batches
from qlora.data.rows import Row, pack
from qlora.data.weighting import Weighting
from qlora.recipes.schema import TrainingSettings
from qlora.training.vision_features import ImageInput, image_input


@dataclass
class SampleEncoder:
    """Conversations to samples: everything between a record and a row.

    Attributes:
        tokenizer, template, max_tokens: as `qlora.data.encode.encode` takes them.
        injection: how images enter the decoder.
        weighting: of the tokens' losses.
        preprocessing: of images.
        store: where visual tokens may be already.
        skip_broken: count images that cannot be decoded, and do not stop.
        templates: of data sets that have one of their own, by the set's name.
    """

    tokenizer: Tokenizer
    template: Template
    max_tokens: int
    injection: Injection
    weighting: Weighting
    preprocessing: Preprocessing
    store: FeatureStore | None = None
    skip_broken: bool = False
    templates: Mapping[str, Template] = field(default_factory=dict)

    def sample(self, conversation: Conversation, source: str) -> Sample:
        template = self.templates.get(source, self.template)
        return encode(conversation, self.tokenizer, template, self.max_tokens, source)

    def row(self, samples: Sequence[Sample]) -> Row:
        return pack(samples, self.injection, self.weighting)

    def prompt(self, conversation: Conversation) -> list[int]:
        """Ids up to where the first answer starts."""
        first, system = conversation.exchanges[0], conversation.system
        return prompt_ids(first, self.tokenizer, self.template, begin=True, system=system)

    def image_inputs(self, images: Sequence[ImageRef]) -> list[ImageInput]:
        """Images on their way to the model. Raises `BadInput` or OSError."""
        return [image_input(ref, self.preprocessing, self.store) for ref in images]

    def refusal(self, problem: Exception, record: str) -> BadInput:
        """The error of an image or record that ends the run."""
        text = str(problem).rstrip(".")
        advice = "" if self.skip_broken else "; data.bad_records=skip trains without such records"
        return BadInput(f"{text}{f' ({record})' if record else ''}{advice}.")


def record_name(conversation: Conversation, source: str) -> str:
    """What to call a record in messages."""
    return f"record {conversation.id!a} of {source}"


@dataclass
class RowInput:
    """A row on its way to the model, with its images, its kind, and the stream it is from."""

    row: Row
    images: list[ImageInput]
    kind: str
    stream: str


@dataclass
class MicroBatch:
    """One accumulation step.

    Attributes:
        rows: at most one of each kind and stream.
        skipped: what was left out, by reason.
        error: a sentence that ends the run, or empty.
    """

    rows: list[RowInput] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    error: str = ""


# Draws before a run gives up on its data: with nine in ten records unusable, once in 10,000.
_MAX_DRAWS = 80


class Feed(Dataset[MicroBatch]):
    """All accumulation steps of a run, by number."""

    def __init__(
        self, streams: dict[str, Mixture], encoder: SampleEncoder, settings: TrainingSettings
    ) -> None:
        """
        Args:
            streams: by name, see `qlora.data.opening.Data`; at least one.
            encoder: how samples are made.
            settings: of which the batches are taken.
        """
        self.streams, self.encoder = streams, encoder
        self.batches = batches(settings, streams)

    def __getitem__(self, number: int) -> MicroBatch:
        micro = MicroBatch()
        for stream, batch in self.batches.items():
            drawn = []
            for position in range(number * batch, (number + 1) * batch):
                try:
                    drawn.append(self._usable(stream, position, micro.skipped))
                except BadInput as problem:
                    micro.error = str(problem)
                    return micro
            for kind in (IMAGES, TEXT):
                chosen = [one for one in drawn if bool(one[1]) == (kind == IMAGES)]
                if chosen:
                    row = self.encoder.row([sample for sample, _ in chosen])
                    images = [image for _, images in chosen for image in images]
                    micro.rows.append(RowInput(row, images, kind, stream))
        return micro

    def _usable(
        self, name: str, position: int, skipped: Counter[str]
    ) -> tuple[Sample, list[ImageInput]]:
        """The sample at a position of a stream or, where it cannot be used, of another epoch.

        Raises:
            BadInput: an image is broken and must not be skipped, or nothing is usable.
        """
        stream = self.streams[name]
        for epoch in range(_MAX_DRAWS):
            record = ""
            try:
                conversation, source = stream[position + epoch * stream.epoch_length]
                record = record_name(conversation, source)
                sample = self.encoder.sample(conversation, source)
                if not sample.trained:
                    raise BadRecord("nothing to train on within data.max_tokens")
                if conversation.images and not sample.images:
                    raise BadRecord("no image within data.max_tokens")
                return sample, self.encoder.image_inputs(sample.images)
            except BadRecord as problem:
                skipped[str(problem)] += 1
            except (BadInput, OSError) as problem:
                if not self.encoder.skip_broken:
                    raise self.encoder.refusal(problem, record) from problem
                skipped["broken image"] += 1
        raise BadInput(
            f"{_MAX_DRAWS} samples drawn one after the other could not be used "
            f"({', '.join(skipped)}); look at the data with --audit."
        )

    def loader(
        self, steps: range, accumulate: int, rank: int, world: int, workers: int
    ) -> DataLoader[MicroBatch]:
        """Iterate over the accumulation steps of one process, read ahead by `workers`."""
        numbers = range(steps.start * accumulate + rank, steps.stop * accumulate, world)
        return DataLoader(
            self,
            batch_size=None,
            sampler=_MicroBatchNumbers(numbers),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
        )


class _MicroBatchNumbers(Sampler[int]):
    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)
