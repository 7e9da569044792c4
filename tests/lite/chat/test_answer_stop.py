"""A stop ends the answer before it, wherever tokens are cut, and the next turn goes on there."""

from collections.abc import Callable
from itertools import pairwise

import pytest

import lite
from lite.chat.chat import Chat
from lite.errors import BadInput, TooLong
from tests.lite.conftest import DOG

QUESTION = "what is this?"


def ask(chat: Chat, stop: list[str], max_tokens: int = 40) -> tuple[str, str]:
    pieces = list(chat.ask(QUESTION, max_tokens=max_tokens, stop=stop))
    return "".join(piece.text for piece in pieces), pieces[-1].timings.finish


@pytest.fixture
def answer(model: Callable[..., lite.Model]) -> str:
    return ask(model().chat(), [])[0]


def test_every_part_of_an_answer_can_be_a_stop(
    model: Callable[..., lite.Model], answer: str
) -> None:
    opened = model()
    for start in range(0, len(answer) - 4, 3):
        for length in (1, 2, 4):
            stop = answer[start : start + length]
            chat = opened.chat()
            shown, finish = ask(chat, [stop])
            assert shown == answer[: answer.index(stop)]
            assert finish == "stop"
            exchange = chat.exchanges[-1] if chat.exchanges else None
            assert (exchange.answer if exchange else "") == shown


def test_the_kept_tokens_say_what_was_shown(model: Callable[..., lite.Model], answer: str) -> None:
    """Also where the stop begins within a token, so that the next turn continues what was shown."""
    opened = model()
    for start in range(1, len(answer) - 2):
        chat = opened.chat()
        shown, _ = ask(chat, [answer[start : start + 2]])
        ids = chat.exchanges[-1].answer_ids if chat.exchanges else []
        if "\N{REPLACEMENT CHARACTER}" not in shown:
            assert opened.tokenizer.decode(ids).strip() == shown.strip()


def test_the_first_of_several_stops_counts(model: Callable[..., lite.Model], answer: str) -> None:
    late, early = answer[12:14], answer[6:8]
    assert ask(model().chat(), [late, early])[0] == answer[: answer.index(early)]


def test_a_stop_that_does_not_come_changes_nothing(
    model: Callable[..., lite.Model], answer: str
) -> None:
    assert ask(model().chat(), [answer[-1] + "\N{SNOWMAN}", "\N{SNOWMAN}"])[0] == answer


def test_the_newline_before_an_answer_is_no_stop(
    model: Callable[..., lite.Model], answer: str
) -> None:
    assert ask(model().chat(), ["\n"])[0] == answer.split("\n")[0]


def test_an_empty_stop_is_refused(model: Callable[..., lite.Model]) -> None:
    for stop in ([""], "text"):
        with pytest.raises(BadInput, match="stop"):
            model().chat().ask("hello", stop=stop)


def test_where_turns_are_kept_a_full_context_ends_the_answer(small: lite.Model) -> None:
    chat = small.chat()
    lengths = [0]
    while small.context - lengths[-1] > 40:
        pieces = list(chat.ask("go on", max_tokens=30, drop_turns=False))
        assert not any(piece.note for piece in pieces)
        lengths.append(len(chat.prompt()[0]))
    assert all(a < b for a, b in pairwise(lengths))
    with pytest.raises(TooLong):
        list(chat.ask("a longer question " * 4, drop_turns=False))
    assert len(chat.exchanges) == len(lengths) - 1


def test_features_are_images_too(model: Callable[..., lite.Model]) -> None:
    opened = model()
    by_features = list(opened.chat().ask(QUESTION, opened.encode_images(DOG), max_tokens=8))
    by_picture = list(opened.chat().ask(QUESTION, DOG, max_tokens=8))
    assert [p.token for p in by_features] == [p.token for p in by_picture]
