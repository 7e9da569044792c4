"""The KV cache gives the logits that a fresh run gives, and runs exactly what it must."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lite
from lite.errors import BadInput
from lite.runtime import decoder as decoder_module
from lite.runtime.vision import ImageFeatures
from tests.conftest import CASES
from tests.lite.conftest import CAT, DOG

RULES = {"following": "base", "preceding": "preceding"}
IMAGE = 401
TEXT = [1, *range(30, 50)]
ONE = [*TEXT[:5], IMAGE, *TEXT[5:]]  # <image> at 5
AT = ONE.index(IMAGE)


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def here(model: Callable[..., lite.Model], rule: str) -> lite.Model:
    return model(RULES[rule])


def fresh(model: lite.Model, ids: Any, images: Any = ()) -> np.ndarray:
    """The last logits, with nothing reused."""
    return model.decoder.score(ids, images)[-1]


def check(model: lite.Model, ids: Any, images: Any, computed: int) -> None:
    """The logits are right, and cost `computed` tokens."""
    logits = model.decoder.logits(ids, images)
    assert model.decoder.computed == computed
    np.testing.assert_allclose(logits, fresh(model, ids, images), atol=1e-4)


def test_what_is_appended_is_all_that_runs(here: lite.Model) -> None:
    check(here, TEXT, [], len(TEXT))
    check(here, [*TEXT, 60, 61, 62], [], 3)
    check(here, [*TEXT, 60, 61, 62, 63], [], 1)
    check(here, [*TEXT, 60, 61, 62, 63], [], 1)  # the last token always runs


def test_text_after_an_image_costs_only_itself(here: lite.Model) -> None:
    (dog,) = here.encode_images(DOG)
    check(here, ONE, [dog], len(ONE))
    check(here, [*ONE, 60, 61], [dog], 2)


def test_an_edited_or_shortened_history_runs_from_where_it_differs(here: lite.Model) -> None:
    check(here, TEXT, [], len(TEXT))
    edited = TEXT.copy()
    edited[7] = 99
    check(here, edited, [], len(TEXT) - 7)
    check(here, edited[:12], [], 1)
    check(here, TEXT, [], len(TEXT) - 7)


def test_the_first_image_of_a_conversation_runs_everything_again(here: lite.Model) -> None:
    (dog,) = here.encode_images(DOG)
    check(here, TEXT, [], len(TEXT))
    # Under both rules the gated feed-forward, skipped so far, now runs for every token.
    check(here, [*TEXT, IMAGE, 60], [dog], len(TEXT) + 2)


def test_a_further_image_runs_what_it_changes(here: lite.Model, rule: str) -> None:
    dog, cat = (here.encode_images(picture)[0] for picture in (DOG, CAT))
    check(here, ONE, [dog], len(ONE))
    two = [*ONE, 60, IMAGE, 61]
    changed = AT + 1 if rule == "following" else len(ONE)
    check(here, two, [dog, cat], len(two) - changed)
    check(here, [*two, 62], [dog, cat], 1)


def test_an_image_taken_away_runs_what_it_changed(here: lite.Model, rule: str) -> None:
    dog, cat = (here.encode_images(picture)[0] for picture in (DOG, CAT))
    here.decoder.logits([*ONE, 60, IMAGE, 61], [dog, cat])
    check(here, [*ONE, 60], [dog], len(ONE) - AT if rule == "following" else 1)
    check(here, TEXT, [], len(TEXT))


def test_another_image_in_its_place_runs_what_saw_it(here: lite.Model, rule: str) -> None:
    dog, cat = (here.encode_images(picture)[0] for picture in (DOG, CAT))
    check(here, ONE, [dog], len(ONE))
    check(here, ONE, [cat], len(ONE) if rule == "following" else len(ONE) - AT)
    check(here, ONE, here.encode_images([CAT.copy()]), 1)  # equal content is the same image


def test_the_same_image_twice_is_two_images(here: lite.Model) -> None:
    dogs = here.encode_images([DOG, DOG])
    two = [*ONE, IMAGE, 60]
    check(here, two, dogs, len(two))
    check(here, [*two, 61], dogs, 1)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_a_prompt_in_chunks_equals_one_run(
    chunk: int, here: lite.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, ids = here.encode_images([DOG, CAT]), [*ONE, 60, IMAGE, 61, 62]
    whole, scored = here.decoder.logits(ids, images), here.decoder.score(ids, images)
    monkeypatch.setattr(decoder_module, "PREFILL_CHUNK", chunk)
    np.testing.assert_allclose(here.decoder.score(ids, images), scored, atol=1e-4)
    here.decoder.logits([9])
    done: list[tuple[int, int]] = []
    logits = here.decoder.logits(ids, images, lambda *now: done.append(now))
    np.testing.assert_allclose(logits, whole, atol=1e-4)
    assert here.decoder.computed == len(ids)
    assert done[-1] == (len(ids), len(ids))
    assert len(done) == -(-len(ids) // chunk)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_prompt_leaves_a_cache_that_is_right(
    error: type[BaseException], here: lite.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = here.encode_images(DOG)
    here.decoder.logits(TEXT)
    monkeypatch.setattr(decoder_module, "PREFILL_CHUNK", 4)

    def stop(done: int, total: int) -> None:
        if done >= 8:
            raise error

    with pytest.raises(error):
        here.decoder.logits(ONE, images, stop)
    check(here, ONE, images, len(ONE) - 8)


def test_a_run_that_fails_leaves_a_cache_that_is_right(
    here: lite.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = here.encode_images(DOG)
    damaged = ImageFeatures("damaged", np.full_like(images[0].array, np.nan))
    here.decoder.logits(TEXT)
    with pytest.raises(lite.LiteError, match="numbers that are not finite"):
        here.decoder.logits([*TEXT[:5], IMAGE], [damaged])
    check(here, ONE, images, len(ONE))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_sequence_after_any_other_is_right(bundles: Any, data: Any) -> None:
    here = lite.load(bundles(data.draw(st.sampled_from(list(RULES.values())))))
    features = here.encode_images([DOG, CAT])
    tokens = st.lists(st.sampled_from([30, 31, IMAGE]), min_size=1, max_size=12)
    for ids in data.draw(st.lists(tokens, min_size=2, max_size=4)):
        images = [data.draw(st.sampled_from(features)) for _ in range(ids.count(IMAGE))]
        logits = here.decoder.logits(ids, images)
        expected = lite.load(here.bundle.folder).decoder.logits(ids, images)
        np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_lists_and_arrays_are_equal_and_not_held_on_to(here: lite.Model) -> None:
    ids = np.array(TEXT)
    here.decoder.logits(ids)
    ids[3] = 99
    check(here, ids, [], len(TEXT) - 3)
    check(here, ids.tolist(), [], 1)
    check(here, ids.astype(np.int32), [], 1)


def test_logits_belong_to_the_caller(here: lite.Model) -> None:
    logits = here.decoder.logits(TEXT)
    kept = logits.copy()
    here.decoder.logits([1, 2, 3])
    assert (logits == kept).all()
    assert logits.dtype == np.float32
    assert logits.shape == (400,)
    logits[:] = -np.inf
    check(here, TEXT, [], len(TEXT) - 1)


def test_the_whole_context_can_be_used_and_no_more(small: lite.Model) -> None:
    full = [1] + [40] * (small.context - 1)
    check(small, full, [], len(full))
    with pytest.raises(BadInput, match="has 193 tokens but the model's context holds 192; shorten"):
        small.decoder.logits([*full, 40])


@pytest.mark.parametrize(
    ("ids", "images", "words"),
    [
        ([], 0, "There are no tokens to run"),
        ([[1, 2]], 0, "There are no tokens to run"),
        ([1, -1], 0, "outside 0 to 402"),
        ([1, 403], 0, "outside 0 to 402"),
        ([1, IMAGE], 0, "has 1 <image> tokens but 0 images were given"),
        ([1, 2], 1, "has 0 <image> tokens but 1 images were given"),
        ([1, IMAGE, IMAGE], 1, "has 2 <image> tokens but 1 images"),
    ],
)
def test_what_cannot_be_run_is_refused(
    ids: Any, images: int, words: str, model: Callable[..., lite.Model]
) -> None:
    here = model()
    features = here.encode_images([DOG] * images)
    here.decoder.logits(TEXT)
    for ask in (here.decoder.logits, here.decoder.score):
        with pytest.raises(BadInput, match=words):
            ask(ids, features)
    check(here, [*TEXT, 60], [], 1)  # and the cache is untouched


def test_forks_share_the_weights_and_nothing_else(model: Callable[..., lite.Model]) -> None:
    first = model().decoder
    second = first.fork()
    ids = CASES[2]["ids"]
    expected = first.logits(ids)
    assert second.reusable(ids) == 0
    assert first.reusable(ids) == len(ids)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(d.score, ids) for d in (first, second)]
    for result in both:
        np.testing.assert_allclose(result.result()[-1], expected, atol=1e-5)
