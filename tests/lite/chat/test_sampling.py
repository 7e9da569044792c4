"""Each setting does what its definition says, compared with brute force."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lite.chat.sampling import Sampler, Sampling, log_probability
from lite.errors import BadInput

LOGITS = np.log(np.array([0.1, 0.4, 0.05, 0.3, 0.15], dtype=np.float32))
DRAWS = 3000
ANY_LOGITS = arrays(np.float32, st.integers(1, 12), elements=st.floats(-30, 30, width=32))


def frequencies(logits: np.ndarray = LOGITS, context: Any = (), **settings: Any) -> np.ndarray:
    sampler = Sampler(Sampling(**{"temperature": 1.0, "seed": 0} | settings))
    drawn = [sampler(logits, context) for _ in range(DRAWS)]
    return np.bincount(drawn, minlength=logits.size) / DRAWS


def softmax(logits: np.ndarray) -> list[float]:
    exps = [math.exp(x - max(logits)) for x in map(float, logits)]
    return [e / sum(exps) for e in exps]


def kept(logits: np.ndarray, top_k: int, top_p: float, min_p: float) -> set[int]:
    """Which tokens may be drawn, by the definitions, one token at a time."""
    probabilities = softmax(logits)
    # By logits: two that differ in their last bit can have equal probabilities.
    ranked = sorted(range(logits.size), key=lambda i: (-logits[i], i))
    ranked = ranked[: top_k or None]
    whole, total, nucleus = sum(probabilities[i] for i in ranked), 0.0, []
    for i in ranked:
        if top_p < 1 and total >= top_p and nucleus:
            break
        nucleus.append(i)
        total += probabilities[i] / whole
    return {i for i in nucleus if probabilities[i] >= min_p * max(probabilities)}


def test_temperature_zero_takes_the_likeliest() -> None:
    assert Sampling().temperature == 0.0
    assert {Sampler(Sampling(seed=seed))(LOGITS) for seed in range(20)} == {1}


@given(ANY_LOGITS)
def test_temperature_zero_is_argmax(logits: np.ndarray) -> None:
    assert Sampler(Sampling())(logits) == logits.argmax()
    assert Sampler(Sampling(temperature=1.0, top_k=1))(logits) == logits.argmax()
    assert Sampler(Sampling(temperature=1.0, top_p=0.0))(logits) == logits.argmax()


def test_without_filters_the_models_own_distribution_is_drawn() -> None:
    np.testing.assert_allclose(frequencies(), softmax(LOGITS), atol=0.04)


def test_temperature_divides_the_logits() -> None:
    np.testing.assert_allclose(frequencies(temperature=2.0), softmax(LOGITS / 2), atol=0.04)
    assert frequencies(temperature=1e-300)[1] == frequencies(temperature=5e-324)[1] == 1


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 99}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.6}, {1, 3}),
        ({"top_p": 0.84}, {1, 3, 4}),
        ({"min_p": 0.5}, {1, 3}),
        ({"min_p": 1.0}, {1}),
        ({"top_k": 3, "min_p": 0.5}, {1, 3}),
        ({"top_k": 2, "top_p": 0.57}, {1}),  # top-p counts what top-k left as the whole
    ],
)
def test_filters_leave_the_right_tokens_in_proportion(
    settings: dict[str, Any], tokens: set[int]
) -> None:
    assert kept(LOGITS, **({"top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings)) == tokens
    expected = np.array([p if i in tokens else 0.0 for i, p in enumerate(softmax(LOGITS))])
    drawn = frequencies(**settings)
    assert set(np.flatnonzero(drawn)) == tokens
    np.testing.assert_allclose(drawn, expected / expected.sum(), atol=0.04)


@given(
    ANY_LOGITS,
    st.integers(0, 14),
    st.floats(0.0, 1.0),
    st.floats(0.0, 1.0),
    st.integers(0, 2**32),
)
def test_only_tokens_that_pass_every_filter_are_drawn(
    logits: np.ndarray, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    # A value on the very edge of a filter may round either way.
    loose = kept(logits, top_k, min(top_p + 1e-9, 1.0), max(min_p - 1e-9, 0.0))
    sampler = Sampler(Sampling(1.0, top_k, top_p, min_p, seed=seed))
    assert {sampler(logits) for _ in range(5)} <= loose


def test_a_seed_repeats_and_none_does_not() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed))
        return [sampler(LOGITS) for _ in range(64)]

    assert draw(7) == draw(7) == draw(np.int64(7))
    assert draw(7) != draw(8)
    assert draw(None) != draw(None)


def test_the_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = np.array([2.0, 1.5, -1.0, -1.2], dtype=np.float32)
    greedy = Sampler(Sampling(repetition_penalty=2.0))
    assert greedy(logits, [0]) == 1
    assert greedy(logits, [0, 1]) == 0
    assert greedy(logits, [0, 0, 0]) == 1  # once, however often it occurs
    assert greedy(logits[2:], [0]) == 1
    drawn = frequencies(logits, [0, 2], repetition_penalty=2.0)
    np.testing.assert_allclose(drawn, softmax(np.array([1.0, 1.5, -2.0, -1.2])), atol=0.04)
    assert logits.tolist() == np.array([2.0, 1.5, -1.0, -1.2], np.float32).tolist()


def test_the_penalty_passes_over_ids_that_have_no_logit() -> None:
    assert Sampler(Sampling(repetition_penalty=2.0))(LOGITS, np.array([401, 402])) == 1


@given(ANY_LOGITS, st.integers(0, 2**32))
def test_a_blocked_token_is_never_drawn(logits: np.ndarray, seed: int) -> None:
    assume(logits.size > 1)
    logits[::2] = -np.inf
    for penalty in (1.0, 1.5):
        settings = Sampling(temperature=5.0, repetition_penalty=penalty, seed=seed)
        assert Sampler(settings)(logits, range(logits.size)) % 2 == 1


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": 10**400},
        {"top_k": -1},
        {"top_k": 2.5},
        {"top_k": math.nan},
        {"top_p": -0.1},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"min_p": 1.1},
        {"min_p": math.nan},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": -math.inf},
        {"repetition_penalty": math.nan},
        {"seed": -1},
        {"seed": 1.5},
        {"seed": math.nan},
    ],
)
def test_settings_out_of_range_are_refused_in_one_sentence(settings: dict[str, Any]) -> None:
    (name,) = settings
    with pytest.raises(BadInput, match=f"^{name} is .*; give a .*\\.$"):
        Sampling(**settings)


def test_the_log_probability_is_the_models_own() -> None:
    assert log_probability(LOGITS, 1) == pytest.approx(math.log(0.4), abs=1e-6)
    huge = np.array([1e4, 1e4, -np.inf], dtype=np.float32)
    assert log_probability(huge, 0) == pytest.approx(math.log(0.5))
