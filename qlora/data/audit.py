"""What a mixture of data would teach about the length of an answer, and what is wrong in it.

Contract: measures, never changes. Multimodal-GPT (arXiv 2305.04790) left VQA v2, OKVQA, GQA, CLEVR
and NLVR out of its training because answers of one or two words made all replies short; this finds
such data before anything is trained. Numbers come from the records that training would use, by the
shares that training would give them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np

from lite.errors import BadInput
from lite.text.tokenizer import Tokenizer
from qlora.data.conversation import BadRecord, Conversation, ImageRef
from qlora.data.encode import token_ids
from qlora.data.lengths import BIN_NAMES, SHORT, Lengths, count_words, lengths_of, percent
from qlora.data.mixture import MixReport, Mixture, Source
from qlora.data.shuffle import Permutation

# In VQA about nine answers in ten are one word (arXiv 1505.00468, section 4.2), and the other sets
# that the paper left out are of that kind; sets of captions and dialogues have hardly any.
TERSE_SET = 0.5
# A set below this share of the mixture cannot set its tone: the published mixture keeps 512
# pictures of OCR-VQA, 0.3 % of its samples with images.
SMALL_SET = 0.01
# What gets a warning of the mixture as a whole. Samples have equal weight in the loss however short
# they are, so above these shares every tenth says that an answer ends after one word, or every
# fourth before five. Judged, not measured.
TERSE_MIXTURE = 0.10
SHORT_MIXTURE = 0.25
# Copies teach their wording by heart; crawled sets have a few per cent.
MANY_DUPLICATES = 0.10


@dataclass
class SetAudit:
    """One data set as one stream uses it.

    Attributes:
        name: of the set.
        kind: the stream.
        records: usable records.
        share: of the mixture's samples.
        looked_at: records that the figures are from.
        answers: trained answers in these.
        context_only: answers that are not trained, because their record says so.
        lengths: of these answers; None where there is none.
        duplicates: records that repeat an earlier one: same texts, same images.
        images: different images in these records.
        broken: name of each that cannot be decoded, and the reason.
        unusable: records that were refused when read, by reason.
    """

    name: str
    kind: str
    records: int
    share: float
    looked_at: int = 0
    answers: int = 0
    context_only: int = 0
    lengths: Lengths | None = None
    duplicates: int = 0
    images: int = 0
    broken: list[tuple[str, str]] = field(default_factory=list)
    unusable: dict[str, int] = field(default_factory=dict)


@dataclass
class Audit:
    """What `audit` found.

    Attributes:
        sets: in the order of the recipe, streams one after the other.
        mixture: answer lengths as training would meet them: each sample weighs the same, and its
            answers share that weight. None where nothing was found.
        left_out, repairs, mix: as given to `audit`.
        warnings: one sentence each.
    """

    sets: list[SetAudit]
    mixture: Lengths | None
    left_out: dict[str, dict[str, int]]
    repairs: dict[str, dict[str, int]]
    mix: str
    warnings: list[str]

    def to_json(self) -> dict[str, Any]:
        """The same in plain types, for `json.dumps`."""
        return {"histogram_bins_words": list(BIN_NAMES), **asdict(self)}


def audit(
    streams: Mapping[str, Mixture],
    tokenizer: Tokenizer,
    limit: int | None = None,
    seed: int = 0,
    left_out: Mapping[str, Mapping[str, int]] | None = None,
    repairs: Mapping[str, Mapping[str, int]] | None = None,
    mix: MixReport | None = None,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Audit:
    """Look at the data that a recipe would train on.

    Args:
        streams: mixtures by kind; a step takes as many samples from each.
        tokenizer: the model's, to count tokens.
        limit: look at so many records of a set, drawn by `seed`; None for all.
        seed: see `limit`.
        left_out: records that are in no stream, by data set and reason; handed on.
        repairs: what is not read as it stands in records that are used; handed on.
        mix: what the mixing of kinds does; handed on.
        progress: called with (data set, records seen, records) while images are decoded.
    """
    sets, answers, weights = [], [], []
    for kind, mixture in streams.items():
        for number, (source, indices) in enumerate(mixture.sets):
            one = SetAudit(source.name, kind, len(indices), mixture.shares[number] / len(streams))
            count = len(indices) if limit is None else min(limit, len(indices))
            order = Permutation(len(indices), seed, "audit", kind, number)
            chosen = [indices[order[i]] for i in range(count)]
            auditor = _SetAuditor(tokenizer, one)
            for done, index in enumerate(chosen):
                auditor.add(source, index)
                progress(source.name, done + 1, count)
            counted = auditor.finish()
            sets.append(one)
            answers.append(counted)
            if len(counted):
                weights.append(counted[:, 2] * one.share / counted[:, 2].sum())
    pooled = np.concatenate(answers) if answers else np.zeros((0, 3))
    mixed = lengths_of(pooled, np.concatenate(weights)) if weights else None
    warnings = _warnings(sets, mixed)
    if mix is not None and mix.warning:
        warnings.append(mix.warning)
    sentence = mix.sentence if mix is not None else ""
    return Audit(sets, mixed, _counted(left_out), _counted(repairs), sentence, warnings)


def _counted(by_set: Mapping[str, Mapping[str, int]] | None) -> dict[str, dict[str, int]]:
    return {name: dict(reasons) for name, reasons in (by_set or {}).items() if reasons}


class _SetAuditor:
    """Goes through the records of one set and fills in its `SetAudit`."""

    def __init__(self, tokenizer: Tokenizer, found: SetAudit) -> None:
        self._tokenizer, self._found = tokenizer, found
        self._answers: list[tuple[float, float, float]] = []  # words, tokens, part of its sample
        self._records: set[bytes] = set()
        self._images: set[bytes] = set()

    def add(self, source: Source, index: int) -> None:
        """Count one record."""
        self._found.looked_at += 1
        try:
            conversation = source.conversation(index, 0)
            trained = [e.answer for e in conversation.exchanges if e.trained]
            lengths = [(count_words(answer), self._tokens(answer)) for answer in trained]
        except BadRecord as problem:
            reason = str(problem)
            self._found.unusable[reason] = self._found.unusable.get(reason, 0) + 1
            return
        self._found.context_only += len(conversation.exchanges) - len(trained)
        self._answers += [(words, tokens, 1 / len(lengths)) for words, tokens in lengths]
        for image in conversation.images:
            self._decode(image)
        identity = _identity(conversation)
        self._found.duplicates += identity in self._records
        self._records.add(identity)

    def finish(self) -> np.ndarray:
        """Words, tokens and part of its sample of each answer: float64 `[n, 3]`."""
        counted = np.array(self._answers, np.float64).reshape(-1, 3)
        self._found.answers, self._found.images = len(counted), len(self._images)
        if len(counted):
            self._found.lengths = lengths_of(counted, np.ones(len(counted)))
        return counted

    def _tokens(self, answer: str) -> int:
        return len(token_ids(self._tokenizer, [answer], begin=False))

    def _decode(self, image: ImageRef) -> None:
        key = image.key
        if key in self._images:
            return
        self._images.add(key)
        try:
            image.load()
        except (BadInput, OSError) as problem:
            self._found.broken.append((image.name, str(problem)))


def _identity(conversation: Conversation) -> bytes:
    """Equal for records with the same texts and images in the same order."""
    hashed = blake2b(repr(conversation.system).encode(), digest_size=16)
    for exchange in conversation.exchanges:
        texts = (exchange.question, exchange.context, exchange.answer)
        images = [image.key for image in exchange.images]
        hashed.update(repr((texts, images)).encode())
    return hashed.digest()


def _warnings(sets: list[SetAudit], mixture: Lengths | None) -> list[str]:
    warnings = []
    for one in sets:
        if one.lengths is not None and one.lengths.one_word > TERSE_SET and one.share >= SMALL_SET:
            warnings.append(
                f"{percent(one.lengths.one_word)} of the answers in {one.name} are one word, and "
                f"it makes {percent(one.share)} of the mixture: such sets shorten all replies, "
                f"which is why Multimodal-GPT left them out; lower its weight or leave it out."
            )
        if one.duplicates > MANY_DUPLICATES * one.looked_at:
            warnings.append(
                f"{percent(one.duplicates / one.looked_at)} of the records looked at in "
                f"{one.name} repeat another one; remove the copies."
            )
        if one.broken:
            warnings.append(
                f"{len(one.broken)} of {one.images} images in {one.name} cannot be decoded "
                f"(the first is {one.broken[0][0]}); replace them, or set data.bad_records=skip."
            )
    if mixture is not None and mixture.one_word > TERSE_MIXTURE:
        warnings.append(
            f"{percent(mixture.one_word)} of the mixture's answers are one word (more than "
            f"{percent(TERSE_MIXTURE)}): the model would learn to reply in one word; lower the "
            f"weight of the sets with short answers."
        )
    elif mixture is not None and mixture.short > SHORT_MIXTURE:
        warnings.append(
            f"{percent(mixture.short)} of the mixture's answers have fewer than {SHORT} words "
            f"(more than {percent(SHORT_MIXTURE)}): replies would become short; lower the weight "
            f"of the sets with short answers."
        )
    return warnings
