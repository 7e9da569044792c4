"""What can be computed before the question is, and changes nothing but when it is done."""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lite
from lite.errors import BadInput
from lite.terminal.prefetch import Prefetch
from tests.lite.conftest import CAT, DOG


def answered(pieces: Any) -> tuple[list[int], int]:
    """Tokens of an answer, and how many tokens were computed before it."""
    pieces = list(pieces)
    return [p.token for p in pieces if p.token is not None], pieces[-1].timings.prefill_tokens


@pytest.mark.parametrize("variant", ["base", "preceding"])
def test_a_prepared_question_computes_only_its_own_words(
    variant: str, model: Callable[..., lite.Model]
) -> None:
    prepared, plain = model(variant).chat(), model(variant).chat()
    for question, image in (("what is this?", DOG), ("and this?", CAT), ("which is it?", None)):
        prepared.prepare(image)
        tokens, computed = answered(prepared.ask(question, image, max_tokens=6))
        expected, all_of_it = answered(plain.ask(question, image, max_tokens=6))
        assert tokens == expected
        own = len(prepared.engine.tokenizer.encode([question], begin=False))
        around = prepared.engine.tokenizer.encode(["\n\n### Response:\n"], begin=False)
        assert computed <= own + len(around) + 2
        assert computed <= all_of_it
    assert [e.answer for e in prepared.exchanges] == [e.answer for e in plain.exchanges]


def test_the_image_is_encoded_and_nothing_is_said(model: Callable[..., lite.Model]) -> None:
    chat, told = model().chat(), list[str]()
    picture = np.full((50, 60, 3), np.arange(60)[:, None], dtype=np.uint8)  # in nobody's cache
    chat.prepare(picture, progress=lambda what, done, total: told.append(what))
    assert {*told} == {"image", "prompt"}
    assert chat.exchanges == []
    pieces = list(chat.ask("what is this?", picture, max_tokens=2))
    assert pieces[-1].timings.images_computed == 0


def test_another_question_than_was_prepared_for_is_answered_right(
    model: Callable[..., lite.Model],
) -> None:
    prepared, plain = model().chat(), model().chat()
    prepared.prepare(DOG)
    assert (
        answered(prepared.ask("what is this?", CAT, max_tokens=6))[0]
        == answered(plain.ask("what is this?", CAT, max_tokens=6))[0]
    )


def test_what_cannot_be_prepared_is_said(model: Callable[..., lite.Model]) -> None:
    chat = model().chat()
    with pytest.raises(BadInput):
        chat.prepare("no such picture.png")


def test_prefetch_runs_beside_and_is_waited_for(model: Callable[..., lite.Model]) -> None:
    chat, prefetch = model().chat(), Prefetch()
    prefetch.start(chat, [DOG])
    prefetch.start(chat, [DOG, CAT])
    prefetch.wait(lambda what, done, total: None)
    pieces = list(chat.ask("which is larger?", [DOG, CAT], max_tokens=2))
    assert pieces[-1].timings.images_computed == 0
    prefetch.wait(lambda what, done, total: None)  # nothing is under way


def test_a_prefetch_that_fails_is_silent(
    model: Callable[..., lite.Model], capfd: pytest.CaptureFixture[str]
) -> None:
    prefetch = Prefetch()
    prefetch.start(model().chat(), ["no such picture.png"])
    prefetch.wait(lambda what, done, total: None)
    assert capfd.readouterr() == ("", "")


def test_messages_of_a_prefetch_wait_until_nobody_types(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr("lite.terminal.prefetch.say", said.append)
    prefetch = Prefetch()
    prefetch.say("now")
    assert said == ["now"]

    class Chat:
        def prepare(self, images: Any, progress: Any) -> None:
            assert threading.current_thread() is not threading.main_thread()
            prefetch.say("later")
            progress("prompt", 1, 2)

    prefetch.start(Chat(), [])  # type: ignore[arg-type]
    prefetch.wait(lambda what, done, total: None)
    assert said == ["now", "later"]
