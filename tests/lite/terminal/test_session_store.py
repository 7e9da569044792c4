"""The file of a conversation belongs to one chat at a time."""

from collections.abc import Callable
from pathlib import Path

import pytest

import lite
from lite.errors import BadInput
from lite.terminal import session_store


def asked(chat: lite.Chat, question: str) -> lite.Chat:
    list(chat.ask(question, max_tokens=1))
    return chat


def test_of_two_chats_that_begin_one_session_the_second_is_told(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    path, here = tmp_path / "a.session", model()
    first, second = session_store.named(str(path)), session_store.named(str(path))
    chat = asked(here.chat(), "red?")
    first.keep(chat)
    with pytest.raises(BadInput, match=r"a\.session was made by another chat meanwhile; /save"):
        second.keep(asked(here.chat(), "blue?"))
    first.keep(asked(chat, "and?"))
    assert [e.question for e in here.open(path).exchanges] == ["red?", "and?"]


def test_of_two_chats_that_continue_one_session_the_second_is_told(
    model: Callable[..., lite.Model], tmp_path: Path
) -> None:
    path, here = tmp_path / "a.session", model()
    asked(here.chat(), "red?").save(path)
    first, second = here.open(path), here.open(path)
    stores = session_store.named(str(path)), session_store.named(str(path))
    stores[0].keep(asked(first, "one"))
    with pytest.raises(BadInput, match="written by another chat since this one used it"):
        stores[1].keep(asked(second, "two"))
    assert [e.question for e in here.open(path).exchanges] == ["red?", "one"]
