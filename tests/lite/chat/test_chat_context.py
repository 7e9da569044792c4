"""When the context is full the oldest turns go, the images stay, and the person is told."""

from typing import Any

import numpy as np
import pytest

import lite
from lite.chat.answer import StreamEvent
from lite.chat.chat import Chat
from lite.chat.sampling import Sampler
from lite.errors import BadInput
from tests.lite.conftest import CAT, DOG

DROPPED = "oldest turn"
IMAGE = 401


@pytest.fixture(autouse=True)
def talkative(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers never end by themselves, and never open a new turn: token 50 again and again."""
    monkeypatch.setattr(Sampler, "__call__", lambda *_: 50)


def ask(chat: Chat, text: str, image: Any = None, max_tokens: int = 8) -> list[StreamEvent]:
    return list(chat.ask(text, image, max_tokens=max_tokens))


def notes(pieces: list[StreamEvent]) -> list[str]:
    return [piece.note for piece in pieces if piece.note]


def fill(chat: Chat) -> list[str]:
    """Ask until a turn is dropped; returns the questions that were asked."""
    questions: list[str] = []
    while True:
        questions.append(f"question {len(questions)}")
        if notes(ask(chat, questions[-1])):
            return questions


def test_the_oldest_turns_are_dropped_with_a_note_and_the_answer_goes_on(small: lite.Model) -> None:
    chat = small.chat()
    questions = fill(chat)
    assert len(questions) > 2
    kept = [exchange.question for exchange in chat.exchanges]
    assert 0 < len(kept) < len(questions)
    assert kept == questions[-len(kept) :]
    assert len(chat.exchanges[-1].answer_ids) == 8
    assert len(chat.prompt()[0]) <= small.context


def test_the_note_says_what_happened(small: lite.Model) -> None:
    chat = small.chat()
    fill(chat)
    (note,) = notes(ask(chat, "a longer question " * 4))
    assert DROPPED in note
    assert note.endswith("dropped to make room in the context; the images stay.")


def test_an_answer_that_fills_the_context_drops_turns_and_goes_on(small: lite.Model) -> None:
    chat = small.chat()
    ask(chat, "first", DOG, 4)
    pieces = ask(chat, "second", None, small.context)
    assert len(notes(pieces)) == 1
    at = next(i for i, piece in enumerate(pieces) if piece.note)
    assert 0 < at < len(pieces) - 1  # in the middle of the answer
    assert [e.question for e in chat.exchanges] == ["second"]
    assert chat.exchanges[0].answer_ids == [50] * sum(p.token is not None for p in pieces)
    ids, images = chat.prompt()
    assert ids.count(IMAGE) == len(images) == 1


def test_an_answer_longer_than_the_context_ends_at_its_limit(small: lite.Model) -> None:
    chat = small.chat()
    pieces = ask(chat, "go on", None, 10**9)
    assert pieces[-1].timings.finish == "length"
    assert len(chat.prompt()[0]) == small.context
    assert notes(ask(chat, "and now?"))  # and the conversation goes on
    assert [e.question for e in chat.exchanges] == ["and now?"]


def test_images_of_dropped_turns_stay_in_order(small: lite.Model) -> None:
    chat = small.chat()
    ask(chat, "this", DOG)
    ask(chat, "that", [CAT])
    fill(chat)
    keys = [memory.key for memory in chat.prompt()[1]]
    assert keys == [memory.key for memory in small.encode_images([DOG, CAT])]
    assert chat.prompt()[0].count(IMAGE) == 2
    assert [name for e in chat.exchanges for name in e.names] == ["the given array"] * 2


def test_after_a_drop_the_logits_are_those_of_a_fresh_run(
    small: lite.Model, small_bundle: Any
) -> None:
    chat = small.chat()
    ask(chat, "this", DOG)
    fill(chat)
    ids, images = chat.prompt()
    fresh = lite.load(small_bundle).decoder.logits(ids, images)
    np.testing.assert_allclose(small.decoder.logits(ids, images), fresh, atol=1e-4)


def test_a_question_longer_than_the_context_is_refused_and_drops_nothing(small: lite.Model) -> None:
    chat = small.chat()
    ask(chat, "this", DOG)
    ask(chat, "that")
    before = [(e.question, len(e.images), [*e.answer_ids]) for e in chat.exchanges]
    words = r"The prompt has \d+ tokens but the model's context holds 192, the answer included;"
    with pytest.raises(BadInput, match=words):
        ask(chat, "0 " * 200)
    assert [(e.question, len(e.images), e.answer_ids) for e in chat.exchanges] == before
    assert ask(chat, "and now?")


def test_a_reader_that_leaves_at_the_note_undoes_the_drop(small: lite.Model) -> None:
    chat = small.chat()
    fill(chat)
    before = [*chat.exchanges]
    images = [len(exchange.images) for exchange in before]
    pieces = chat.ask("a longer question " * 4)
    assert next(pieces).note
    pieces.close()
    assert chat.exchanges == before
    assert [len(exchange.images) for exchange in chat.exchanges] == images
