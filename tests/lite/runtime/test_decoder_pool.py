"""Several threads may use one model, each with chats of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import lite
from lite.errors import BadInput
from tests.lite.conftest import CAT, DOG

EXAMPLES = Path(__file__).parents[3] / "examples"
PICTURES = ("farm", "garden", "harbour", "park", "tiger")
QUESTIONS = ("What is in the picture?", "What colour is it?", "How many are there?", "And where?")


def conversation(model: lite.Model, picture: str) -> list[str]:
    chat, image = model.chat(), EXAMPLES / f"{picture}.png"
    asked = zip(QUESTIONS, (image, None, None, None), strict=True)
    return [text_of(chat, question, image) for question, image in asked]


def text_of(chat: lite.Chat, question: str, image: Path | None = None) -> str:
    events = chat.ask(question, image, max_tokens=10, prompt_lookup=False)
    return "".join(event.text for event in events)


def test_questions_of_four_threads_are_answered_as_one_by_one() -> None:
    alone = lite.load()
    expected = [conversation(alone, picture) for picture in PICTURES]
    assert len({tuple(answers) for answers in expected}) == len(PICTURES)
    shared = lite.load()
    with ThreadPoolExecutor(4) as threads:
        assert [*threads.map(lambda p: conversation(shared, p), PICTURES)] == expected


def test_scores_of_several_threads_are_those_of_one(model: Callable[..., lite.Model]) -> None:
    here = model()
    jobs = [([1, 401, *range(30 + i, 60)], [DOG, CAT][i % 2]) for i in range(8)]
    expected = [here.score(*job) for job in jobs]
    with ThreadPoolExecutor(4) as threads:
        for one, other in zip(
            expected, threads.map(lambda job: here.score(*job), jobs), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_answers_one_after_the_other_share_a_decoder(model: Callable[..., lite.Model]) -> None:
    here = model()
    for _ in range(2):
        text_of(here.chat(), "red?")
        with here.decoders.lend([], []) as lent:
            assert lent is here.decoder


def test_answers_at_the_same_time_have_one_each_and_give_it_back(
    model: Callable[..., lite.Model],
) -> None:
    here = model()
    with here.decoders.lend([], []) as first:
        with here.decoders.lend([], []) as second:
            assert first is not second
            second.logits([1, 50, 51])
        with here.decoders.lend([1, 50, 51, 52], []) as again:
            assert again is second
    with here.decoders.lend([1, 50, 51, 52], []) as best:
        assert best is second


def test_one_chat_in_two_threads_is_refused(model: Callable[..., lite.Model]) -> None:
    chat = model().chat()
    answer = chat.ask("red?", max_tokens=6)
    next(answer)
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            next(chat.ask("blue?"))
        except BadInput as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert "is answering in another thread; give each thread a chat of its own." in str(caught[0])
    assert len([*answer]) >= 1
    assert [e.question for e in chat.exchanges] == ["red?"]
    assert text_of(chat, "blue?") is not None


def test_an_answer_left_unfinished_ends_where_the_next_begins(
    model: Callable[..., lite.Model],
) -> None:
    chat = model().chat()
    left = chat.ask("red?", max_tokens=6)
    shown = next(left).text
    text_of(chat, "blue?")
    assert [*left] == []
    assert [e.question for e in chat.exchanges] == ["red?", "blue?"]
    assert chat.exchanges[0].answer == shown
    with pytest.raises(StopIteration):
        next(left)
