"""Packing: one row gives each sample what it would get alone."""

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from lite.bundle.injection import Injection
from lite.text.template import MMGPT
from qlora.data.conversation import Conversation, Exchange
from qlora.data.encode import IGNORE, Sample, encode
from qlora.data.rows import Row, pack
from qlora.data.weighting import Weighting
from qlora.families.flamingo import read_flamingo
from qlora.model import VisionLanguageModel
from tests.conftest import CHECKPOINTS
from tests.qlora.data.small import fixture_tokenizer, say

TOKENIZER = fixture_tokenizer()
TALKS = [
    say("what is in the image?", "two dogs", images=1),
    say("compare", "a car", "a bus", images=2),
    say("red?", "no", images=1),
]
TEXTS = [say("how to bake lasagna?", "with cheese"), say("hello", "a", "b"), say("x", "y")]


def samples_of(conversations: list[Conversation]) -> list[Sample]:
    return [encode(c, TOKENIZER, MMGPT, 512) for c in conversations]


def packed(samples: list[Sample], attend: str = "following", unit: str = "sample") -> Row:
    return pack(samples, Injection(TOKENIZER.image, 1, attend), Weighting(unit))


def logits(model: VisionLanguageModel, row: Row, visual: torch.Tensor | None) -> torch.Tensor:
    return model(
        row.ids[None], visual=visual, index=row.index[None], positions=row.positions[None]
    )[0]


@pytest.fixture(scope="module")
def model() -> VisionLanguageModel:
    return VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS))


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("attend", ["following", "preceding"])
@pytest.mark.parametrize("kind", [TALKS, TEXTS], ids=["images", "text"])
@torch.no_grad()
def test_each_sample_has_the_logits_that_it_has_alone(
    kind: list[Conversation], attend: str, implementation: str, model: Any
) -> None:
    model.lang_encoder.set_attn_implementation(implementation)
    model.config = dataclasses.replace(model.config, attend=attend)
    samples = samples_of(kind)
    row = packed(samples, attend)
    visual = None
    if row.images:
        shape = (1, len(row.images), model.config.latents, model.config.dim_visual)
        visual = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    together = logits(model, row, visual)
    start = image = 0
    for sample in samples:
        own = None if visual is None else visual[:, image : image + len(sample.images)]
        alone = model(torch.from_numpy(sample.ids)[None], visual=own)[0]
        part = together[start : start + len(sample.ids)]
        assert torch.allclose(part, alone, atol=2e-5)
        start, image = start + len(sample.ids), image + len(sample.images)
    # Positions that go on through the row let the second sample see the first.
    mixed = dataclasses.replace(row, positions=torch.arange(len(row.ids)))
    assert not torch.allclose(logits(model, mixed, visual), together, atol=1e-3)


def test_positions_start_again_and_images_are_numbered_through_the_row() -> None:
    samples = samples_of(TALKS)
    row = packed(samples)
    assert row.positions.tolist() == [i for s in samples for i in range(len(s.ids))]
    assert row.ids.tolist() == [i for s in samples for i in s.ids.tolist()]
    assert (row.samples, len(row.images)) == (3, 4)
    at_images = row.index[row.ids == TOKENIZER.image]
    assert at_images.tolist() == [1, 2, 3, 4]
    # Past its last image a token sees none, not the next sample's first.
    end_of_first = len(samples[0].ids) - 1
    assert row.index[end_of_first] == 0
    assert packed(samples, "preceding").index[end_of_first] == 1
    dtypes = {t.dtype for t in (row.ids, row.positions, row.targets, row.index)}
    assert dtypes == {torch.int64}


@pytest.mark.parametrize("attend", ["following", "preceding"])
def test_no_sample_sees_an_image_of_another(attend: str) -> None:
    samples = samples_of(TALKS)
    row = packed(samples, attend)
    start = shown = 0
    for sample in samples:
        own = set(row.index[start : start + len(sample.ids)].tolist()) - {0}
        assert own == set(range(shown + 1, shown + 1 + len(sample.images)))
        start, shown = start + len(sample.ids), shown + len(sample.images)


def test_a_target_is_in_its_own_sample() -> None:
    row = packed(samples_of(TEXTS))
    last = np.cumsum([len(s.ids) for s in samples_of(TEXTS)]) - 1
    assert row.targets[last].tolist() == [TOKENIZER.eos] * 3


def test_weights_give_each_sample_or_each_token_one_voice() -> None:
    samples = samples_of(TEXTS)
    by_sample, by_token = (packed(samples, unit=n).weights for n in ("sample", "token"))
    assert by_sample.sum().item() == pytest.approx(3)
    assert by_token.sum().item() == sum(sample.trained for sample in samples)
    first = by_sample[: len(samples[0].ids)]
    assert first.sum().item() == pytest.approx(1)
    assert by_sample.dtype == torch.float32
    targets = packed(samples).targets
    assert not by_sample[targets == IGNORE].any()


def test_a_sample_without_targets_weighs_nothing() -> None:
    (sample,) = samples_of(TEXTS[:1])
    silent = dataclasses.replace(sample, targets=np.full_like(sample.targets, IGNORE))
    assert packed([silent]).weights.sum() == 0


def test_samples_with_and_without_images_do_not_share_a_row() -> None:
    with pytest.raises(ValueError, match="not both"):
        packed(samples_of([TALKS[0], TEXTS[0]]))
    with pytest.raises(ValueError, match="not 'mean'"):
        packed(samples_of(TEXTS), unit="mean")


def test_what_a_record_makes_an_answer_count_multiplies_its_weights() -> None:
    answers = (Exchange("a?", "one", weight=0), Exchange("b?", "two three", weight=0.5))
    (sample,) = samples_of([Conversation("x", answers)])
    (plain,) = samples_of([Conversation("x", tuple(replace(one, weight=1) for one in answers))])
    half = packed([sample]).weights
    trained = sample.targets != IGNORE
    # The first answer is context; the second gives half of its mean.
    assert trained.sum() < (plain.targets != IGNORE).sum()
    assert half.sum().item() == pytest.approx(0.5)
    assert packed([sample], unit="token").weights.sum().item() == pytest.approx(trained.sum() / 2)
    assert Weighting("sample").count(packed([sample])) == 1
    assert Weighting("token").count(packed([sample])) == trained.sum()
