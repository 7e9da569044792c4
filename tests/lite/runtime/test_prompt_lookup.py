"""Prompt lookup changes how many runs an answer takes, and nothing else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lite
from lite.chat.sampling import Sampler, Sampling
from lite.runtime.prompt_lookup import DRAFTS, MIN_RUNS, PromptLookup, RunCosts
from tests.lite.conftest import CAT, DOG

RULES = {"following": "base", "preceding": "preceding"}
IMAGE = 401
REPEATING = [1, *[30, 31, 32, 33, 34, 35] * 4]


class Free(RunCosts):
    """As if a run of many tokens took as long as a run of one: every guess is tried."""

    def ratio(self, tokens: int) -> float:
        return 1e-9


class Dear(RunCosts):
    """As if tokens cost the same together as one by one: no guess is ever tried."""

    def ratio(self, tokens: int) -> float:
        return float(tokens)


@pytest.fixture(params=RULES)
def here(request: pytest.FixtureRequest, model: Callable[..., lite.Model]) -> lite.Model:
    return model(RULES[request.param])


def generate(
    model: lite.Model,
    prompt: list[int],
    images: Any = (),
    costs: RunCosts | None = None,
    tokens: int = 40,
    **sampling: Any,
) -> tuple[list[int], int]:
    """Tokens drawn after a prompt, and the runs that took; without costs one at a time."""
    decoder, sampler, ids = model.decoder, Sampler(Sampling(**sampling)), [*prompt]
    logits = decoder.logits(ids, images)
    ahead = PromptLookup(decoder, costs or RunCosts(), costs is not None)
    special = model.tokenizer.suppressed(logits.size)
    while len(ids) < len(prompt) + tokens:
        logits[special] = -np.inf
        ids.append(sampler(logits, ids))
        logits = ahead.logits(ids, images)
    return ids[len(prompt) :], ahead.runs


def test_the_same_tokens_in_fewer_runs(here: lite.Model) -> None:
    plain, runs = generate(here, REPEATING)
    assert runs == 40
    guessed, fewer = generate(here, REPEATING, costs=Free())
    assert guessed == plain
    assert fewer < runs


def test_images_are_seen_as_before(here: lite.Model) -> None:
    images = here.encode_images([DOG, CAT])
    prompt = [1, 40, IMAGE, *range(30, 40), IMAGE, *range(30, 40), 50]
    plain, _ = generate(here, prompt, images)
    guessed, _ = generate(here, prompt, images, Free())
    assert guessed == plain
    assert plain != generate(here, prompt, images[::-1])[0]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_prompt_gives_the_tokens_of_one_run_a_token(bundles: Any, data: Any) -> None:
    model = lite.load(bundles(data.draw(st.sampled_from(list(RULES.values())))))
    # Few different tokens, so that n-grams come again, wrongly as often as rightly.
    alphabet = data.draw(st.sampled_from([[30, 31], [30, 31, 32, IMAGE], list(range(20, 300))]))
    prompt = [1, *data.draw(st.lists(st.sampled_from(alphabet), min_size=1, max_size=40))]
    pictures = model.encode_images([DOG, CAT])
    images = [pictures[i % 2] for i in range(prompt.count(IMAGE))]
    how = data.draw(
        st.sampled_from(
            [
                {},
                {"repetition_penalty": 1.3},
                {"temperature": 0.8, "seed": 3},
                {"temperature": 2.0, "top_k": 5, "seed": 4},
            ]
        )
    )
    plain, _ = generate(model, prompt, images, tokens=24, **how)
    guessed, _ = generate(model, prompt, images, Free(), tokens=24, **how)
    assert guessed == plain


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_quantized_models_answer_the_same(kind: str, bundles: Any) -> None:
    model = lite.load(bundles("base", kind))
    random = np.random.default_rng(0)
    for _ in range(10):
        prompt = [1, *random.integers(20, 40, 30).tolist()]
        assert generate(model, prompt, costs=Free())[0] == generate(model, prompt)[0]


def test_samples_have_the_same_distribution(model: Callable[..., lite.Model]) -> None:
    here = model()
    pairs = {}
    for costs in (None, Free()):
        drawn = [
            tuple(generate(here, REPEATING, (), costs, 2, temperature=1.0, top_k=3, seed=seed)[0])
            for seed in range(60)
        ]
        pairs[costs is None] = drawn
    assert pairs[True] == pairs[False]  # the same random numbers, so even the same tokens
    assert len(set(pairs[True])) > 3


def test_what_does_not_pay_is_not_tried(here: lite.Model) -> None:
    plain, runs = generate(here, REPEATING)
    assert generate(here, REPEATING, costs=Dear()) == (plain, runs)


def test_guesses_that_are_wrong_stop(model: Callable[..., lite.Model]) -> None:
    """Two tokens are soon found again among 12, but what follows is right one time in 12."""
    here, asked = model(), []
    ahead = here.decoder.ahead

    def counting(ids: Any, images: Any, draft: list[int]) -> np.ndarray:
        asked.append(len(draft))
        return ahead(ids, images, draft)

    here.decoder.ahead = counting  # type: ignore[method-assign]
    costs = RunCosts()
    for tokens in (1, *(1 + n for n in DRAFTS)):
        for _ in range(MIN_RUNS):
            costs.record(tokens, 1 + 0.07 * (tokens - 1))
    costs.record = lambda tokens, seconds: None  # type: ignore[method-assign]
    random, ids = np.random.default_rng(1), [*REPEATING]
    prompt_lookup = PromptLookup(here.decoder, costs)
    for _ in range(200):
        ids.append(int(random.integers(30, 42)))
        prompt_lookup.logits(ids, ())
    # Guesses are tried, and then mostly are not any more.
    assert sum(asked[:30]) > 0
    assert np.count_nonzero(asked[100:]) < 10


def test_costs_are_what_was_measured() -> None:
    costs = RunCosts()
    assert costs.ratio(4) == np.inf  # nothing is tried before it is known what one token costs
    for seconds in (9.0, 1.0, 1.1):
        costs.record(1, seconds)
    assert costs.ratio(4) == pytest.approx(1.21)
    for seconds in (9.0, 1.0, 1.1):
        costs.record(4, 2 * seconds)
    assert costs.ratio(4) == 2.0
    assert costs.ratio(8) == pytest.approx(1 + 7 / 3)  # as each further token did
    costs.record(8, 1.5)
    assert costs.ratio(8) == pytest.approx(1 + 7 / 3)  # one run is not believed


def test_models_that_are_quick_anyway_stay_as_they_are() -> None:
    costs = RunCosts()
    for _ in range(MIN_RUNS):
        costs.record(1, 0.0005)
    assert costs.ratio(4) == np.inf


def test_special_tokens_are_never_guessed(model: Callable[..., lite.Model]) -> None:
    decoder = model().decoder
    assert decoder.ordinary([30, 31, IMAGE, 32]) == [30, 31]
    assert decoder.ordinary([30, 400]) == [30]
    assert decoder.ordinary([2, 30]) == []


def test_the_end_of_the_context_is_never_passed(small: lite.Model) -> None:
    prompt = [1, *[40, 41] * ((small.context - 20) // 2)]
    room = small.context - len(prompt)
    plain, _ = generate(small, prompt, tokens=room)
    assert generate(small, prompt, costs=Free(), tokens=room)[0] == plain


def test_rows_ahead_are_the_logits_of_each_prefix(here: lite.Model) -> None:
    (dog,) = here.encode_images(DOG)
    ids, draft = [1, IMAGE, 30, 31], [32, 33, 34]
    rows = here.decoder.ahead(ids, [dog], draft)
    for k in range(len(draft) + 1):
        fresh = here.decoder.score([*ids, *draft[:k]], [dog])[-1]
        np.testing.assert_allclose(rows[k], fresh, atol=1e-4)


def test_a_chat_gives_the_same_answers_and_says_what_they_took(here: lite.Model) -> None:
    answers = []
    for prompt_lookup in (False, True):
        here.run_costs = Free()
        chat, said = here.chat(), []
        for question, image in (("Say it again and again.", DOG), ("And again?", None)):
            pieces = [*chat.ask(question, image, max_tokens=60, prompt_lookup=prompt_lookup)]
            said.append([(p.token, p.text) for p in pieces])
            timings = pieces[-1].timings
            assert timings.decode_runs <= timings.new_tokens
        answers.append(said)
        runs = timings.decode_runs
    assert answers[0] == answers[1]
    assert runs <= len(answers[0][-1])


def test_full_contexts_drop_turns_as_before(small: lite.Model) -> None:
    texts = []
    for prompt_lookup in (False, True):
        small.run_costs = Free()
        chat = small.chat()
        said = [
            "".join(
                p.text for p in chat.ask("Tell me.", max_tokens=90, prompt_lookup=prompt_lookup)
            )
            for _ in range(4)
        ]
        texts.append(said)
    assert texts[0] == texts[1]
