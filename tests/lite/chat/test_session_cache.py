"""A session with its KV cache continues at once, and never with another conversation's cache."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lite
from lite.errors import BadInput
from tests.lite.chat.session_files import answer, packed, unpacked
from tests.lite.conftest import BIRD, CAT, DOG

RULES = ["base", "preceding"]


def last_logits(chat: lite.Chat) -> np.ndarray:
    return chat.decoder.logits(*chat.prompt())


@pytest.fixture(params=RULES)
def here(request: pytest.FixtureRequest, model: Callable[..., lite.Model]) -> lite.Model:
    return model(request.param)


@pytest.fixture
def chat(here: lite.Model) -> lite.Chat:
    """Text, an image, text, two images of which one was there before."""
    chat = here.chat("You look at pictures.")
    answer(chat, "hello")
    answer(chat, "what is this?", DOG)
    answer(chat, "is it?")
    answer(chat, "and these?", [CAT, DOG])
    return chat


@pytest.mark.parametrize("image", [None, BIRD])
def test_the_next_turn_computes_what_it_would_have_computed(
    image: Any, chat: lite.Chat, tmp_path: Path
) -> None:
    chat.save(tmp_path / "a.session", kv=True)
    reopened = lite.load(chat.engine.bundle.folder)
    again = reopened.open(tmp_path / "a.session")
    ids, images = chat.prompt()
    assert (
        again.decoder.reusable(*again.prompt())
        == len(ids) - 1
        == chat.decoder.reusable(ids, images)
    )
    assert answer(again, "next?", image) == answer(chat, "next?", image)
    assert again.decoder.computed == chat.decoder.computed
    # Bit by bit what the chat that was never closed computes, and right.
    np.testing.assert_array_equal(last_logits(again), last_logits(chat))
    fresh = lite.load(chat.engine.bundle.folder).decoder.logits(*chat.prompt())
    np.testing.assert_allclose(last_logits(again), fresh, atol=1e-4)


def test_a_turn_of_text_computes_only_its_own_tokens(chat: lite.Chat, tmp_path: Path) -> None:
    chat.save(tmp_path / "a.session", kv=True)
    again = lite.load(chat.engine.bundle.folder).open(tmp_path / "a.session")
    before = len(again.prompt()[0])
    pieces = again.ask("why?", max_tokens=1)
    timings = next(pieces).timings
    assert timings.prefill_tokens == timings.prompt_tokens - before + 1
    pieces.close()


def test_an_answer_that_was_stopped_is_kept_as_far_as_it_was_shown(
    chat: lite.Chat, tmp_path: Path
) -> None:
    pieces = chat.ask("tell me", max_tokens=20)
    for _ in range(7):
        next(pieces)
    pieces.close()
    chat.save(tmp_path / "a.session", kv=True)
    again = lite.load(chat.engine.bundle.folder).open(tmp_path / "a.session")
    assert answer(again, "go on") == answer(chat, "go on")
    np.testing.assert_array_equal(last_logits(again), last_logits(chat))


def test_only_the_positions_of_this_conversation_are_kept(
    chat: lite.Chat, here: lite.Model, tmp_path: Path
) -> None:
    other = here.chat("You look at pictures.")
    answer(other, "another question", CAT)  # the decoder now holds this one
    held = here.decoder.reusable(*chat.prompt())
    assert held < len(chat.prompt()[0]) - 1
    chat.save(tmp_path / "a.session", kv=True)
    header, arrays = unpacked(tmp_path / "a.session")
    if held:
        sizes = here.bundle.manifest.sizes
        assert arrays["kv.0"].shape == (2, sizes.kv_heads, held, sizes.head_dim)
        assert header["cache"]["ids"] == chat.prompt()[0][:held]
    else:
        assert header["cache"] is None
    again = here.open(tmp_path / "a.session")
    assert answer(again, "so?") == answer(chat, "so?")


def test_a_chat_on_a_fork_keeps_the_forks_cache(
    chat: lite.Chat, here: lite.Model, tmp_path: Path
) -> None:
    fork = lite.Chat(here, "You look at pictures.", here.decoder.fork())
    answer(fork, "hello", BIRD)
    fork.save(tmp_path / "fork.session", kv=True)
    again = lite.Chat(here, decoder=here.decoder.fork())
    lite.chat.session.load(again, tmp_path / "fork.session")
    assert answer(again, "and?") == answer(fork, "and?")
    assert again.decoder.computed == fork.decoder.computed
    # The engine's own decoder was left alone.
    assert here.decoder.reusable(*chat.prompt()) == len(chat.prompt()[0]) - 1


def test_opening_into_a_decoder_that_others_use_leaves_them_right(
    chat: lite.Chat, here: lite.Model, tmp_path: Path
) -> None:
    chat.save(tmp_path / "a.session", kv=True)
    other = here.chat()
    answer(other, "another", [CAT])
    again = here.open(tmp_path / "a.session")
    fresh = lite.load(here.bundle.folder)
    for one in (other, again, chat, other):
        np.testing.assert_allclose(
            last_logits(one), fresh.decoder.score(*one.prompt())[-1], atol=1e-4
        )


def test_a_conversation_saved_without_cache_is_read_again_once(
    chat: lite.Chat, tmp_path: Path
) -> None:
    chat.save(tmp_path / "a.session")
    assert unpacked(tmp_path / "a.session")[0]["cache"] is None
    again = lite.load(chat.engine.bundle.folder).open(tmp_path / "a.session")
    for question, all_of_it in (("one", True), ("two", False)):
        pieces = list(again.ask(question, max_tokens=2))
        timings = pieces[-1].timings
        assert (timings.prefill_tokens == timings.prompt_tokens) == all_of_it


def test_a_session_saved_with_its_cache_can_be_saved_with_it_again(
    chat: lite.Chat, tmp_path: Path
) -> None:
    chat.save(tmp_path / "a", kv=True)
    lite.load(chat.engine.bundle.folder).open(tmp_path / "a").save(tmp_path / "b", kv=True)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_full_context_can_be_kept(small: lite.Model, tmp_path: Path) -> None:
    chat = small.chat()
    for turn in range(12):
        answer(chat, f"question {turn}", DOG if turn == 1 else None, max_tokens=30)
    chat.save(tmp_path / "a.session", kv=True)
    again = lite.load(small.bundle.folder).open(tmp_path / "a.session")
    for _ in range(4):
        assert answer(again, "more?", max_tokens=30) == answer(chat, "more?", max_tokens=30)


def test_a_conversation_longer_than_the_context_is_kept_without_cache(
    small: lite.Model, tmp_path: Path
) -> None:
    chat = small.chat()
    answer(chat, "hello")
    chat.system = "7 " * 300
    chat.save(tmp_path / "a.session", kv=True)
    assert unpacked(tmp_path / "a.session")[0]["cache"] is None
    assert small.open(tmp_path / "a.session").system == chat.system


def test_neither_saving_nor_opening_copies_the_whole_cache(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    here, path = model(), tmp_path / "a.session"
    chat = here.chat("7 " * 700)
    answer(chat, "hello", max_tokens=1)
    for act in (lambda: chat.save(path, kv=True), lambda: here.open(path)):
        tracemalloc.start()
        act()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert path.stat().st_size > 5_000_000
        assert peak < path.stat().st_size / 2


def test_a_cache_of_another_conversation_is_refused(chat: lite.Chat, tmp_path: Path) -> None:
    path = tmp_path / "a.session"
    chat.save(path, kv=True)
    header, arrays = unpacked(path)
    for change in (
        {"ids": [2, *header["cache"]["ids"][1:]]},
        {"seen": [2, *header["cache"]["seen"][1:]]},
        {"keys": header["cache"]["keys"][::-1]},
    ):
        path.write_bytes(packed(header | {"cache": header["cache"] | change}, arrays))
        with pytest.raises(BadInput, match="the KV cache is of another conversation"):
            lite.load(chat.engine.bundle.folder).open(path)


def test_a_refused_cache_leaves_the_decoder_right(chat: lite.Chat, tmp_path: Path) -> None:
    here, path = chat.engine, tmp_path / "a.session"
    chat.save(path, kv=True)
    header, arrays = unpacked(path)
    arrays["kv.2"] = np.full_like(arrays["kv.2"], np.nan)
    path.write_bytes(packed(header, arrays))
    untouched = lite.Chat(here)
    answer(untouched, "hello")
    with pytest.raises(BadInput, match=r"kv\.2 has numbers that are not finite"):
        lite.chat.session.load(untouched, path)
    assert [e.question for e in untouched.exchanges] == ["hello"]
    fresh = lite.load(here.bundle.folder).decoder
    for one in (untouched, chat):
        np.testing.assert_allclose(last_logits(one), fresh.logits(*one.prompt()), atol=1e-4)


def test_an_exported_cache_says_what_each_position_saw(here: lite.Model) -> None:
    text = [1, 30, 31]
    here.decoder.logits(text)
    state = here.decoder.export_cache(text)
    assert (state.keys, state.attended.tolist()) == ([], [-1, -1, -1])
    image = here.tokenizer.image
    cat, dog = here.encode_images([CAT, DOG])
    ids = [1, image, 30, image, 31]
    here.decoder.logits([1, image], [cat])
    here.decoder.logits(ids, [dog, dog])
    state = here.decoder.export_cache(ids, [dog, dog])
    following = here.bundle.manifest.attend == "following"
    assert state.keys == [dog.key]
    assert state.attended.tolist() == ([1, 1, 1, 1, 0] if following else [0, 1, 1, 1, 1])


def test_a_cache_that_does_not_fit_is_not_imported(here: lite.Model) -> None:
    ids = [1, 30, 31, 32]
    here.decoder.logits(ids)
    state = here.decoder.export_cache(ids)
    layers = list(state.layers)
    twin = here.decoder.fork()
    for wrong in (
        replace(state, layers=layers[:-1]),
        replace(state, layers=[*layers, layers[0]]),
        replace(state, layers=[layer[:, :, :-1] for layer in layers]),
        replace(state, layers=[layer.astype(np.float64) for layer in layers]),
        replace(state, attended=state.attended[:-1]),
        replace(state, attended=np.array([0, 0, 0, 5])),
        replace(state, attended=np.array([0, 0, 0, -5])),
        replace(state, ids=np.array([1, 30, 31, 33])),
    ):
        with pytest.raises(ValueError, match=r"KV cache|zip\(\)"):
            twin.import_cache(wrong, ids)
        assert twin.reusable(ids) == 0
    twin.import_cache(replace(state, layers=layers), ids)
    np.testing.assert_array_equal(twin.logits([*ids, 9]), here.decoder.logits([*ids, 9]))
    assert twin.computed == 1
