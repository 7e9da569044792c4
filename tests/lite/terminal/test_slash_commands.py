"""The slash commands: what each tells, and what it does to the conversation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lite
from lite.errors import BadInput
from lite.terminal import slash_commands
from lite.terminal.chat_session import ChatSession
from lite.terminal.repl import handle
from lite.terminal.session_store import SessionStore
from lite.terminal.slash_commands import COMMANDS, Quit
from tests.lite.conftest import CAT, DOG
from tests.refusals import check_one_sentence

SETTINGS = {
    "max_tokens": 5,
    "temperature": 0.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "seed": None,
}


@pytest.fixture
def session(model: Callable[..., lite.Model]) -> ChatSession:
    opened = model()
    return ChatSession(opened, opened.chat(), dict(SETTINGS))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(DOG).save(tmp_path / "my dog.png")
    return tmp_path / "my dog.png"


def refused(session: ChatSession, line: str) -> str:
    """The sentence that refuses a line; the conversation stays as it was."""
    before = [*session.chat.exchanges], [*session.waiting], session.settings, session.chat.system
    with pytest.raises(BadInput) as refusal:
        handle(session, line)
    assert before == (
        session.chat.exchanges,
        session.waiting,
        session.settings,
        session.chat.system,
    )
    check_one_sentence(refusal)
    return str(refusal.value)


def answers(session: ChatSession) -> list[str]:
    return [exchange.answer for exchange in session.chat.exchanges]


def test_set_shows_and_changes_settings(session: ChatSession) -> None:
    assert slash_commands.run(session, "/set") == (
        "max_tokens 5\ntemperature 0.0\ntop_k 0\ntop_p 1.0\nmin_p 0.0\nrepetition_penalty 1.0\n"
        "seed none"
    )
    assert slash_commands.run(session, "/set temperature") == "temperature 0.0"
    assert slash_commands.run(session, "/set temperature 0.2") == "temperature 0.2"
    assert slash_commands.run(session, "/set top_k  40 ") == "top_k 40"
    assert slash_commands.run(session, "/set seed 7") == "seed 7"
    assert slash_commands.run(session, "/set seed none") == "seed none"
    assert slash_commands.run(session, "/set max_tokens 3") == "max_tokens 3"
    assert session.settings == SETTINGS | {"temperature": 0.2, "top_k": 40, "max_tokens": 3}
    session.ask("what is this?")
    assert len(session.chat.exchanges[0].answer_ids) == 3


def test_set_refuses_what_no_answer_could_use(session: ChatSession) -> None:
    assert refused(session, "/set temprature 1") == (
        "There is no setting temprature, the nearest is temperature; /set alone shows all."
    )
    assert refused(session, "/set top_k 0.5") == "top_k must be a whole number, not 0.5."
    assert refused(session, "/set top_p much") == "top_p must be a number, not much."
    assert refused(session, "/set top_p 3") == "top_p is 3.0; give a value from 0.0 to 1.0."
    assert refused(session, "/set temperature nan").startswith("temperature is nan; give a value")
    assert refused(session, "/set seed -1") == "seed is -1; give a whole number from 0."
    assert refused(session, "/set max_tokens 0") == "max_tokens is 0; give a number from 1."


def test_help_lists_every_command(session: ChatSession) -> None:
    lines = slash_commands.run(session, "/help").splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == list(COMMANDS)
    assert "/save FILE [--kv]    save the conversation; --kv: with its KV cache" in lines


def test_an_unknown_command_names_the_nearest(session: ChatSession) -> None:
    assert refused(session, "/hlep me") == (
        "There is no command /hlep, the nearest is /help; /help shows all commands, and a space "
        "before the slash makes the line a question."
    )
    assert "the nearest is /image;" in refused(session, "/img x.png")
    assert refused(session, "/foo") == (
        "There is no command /foo; /help shows all commands, and a space before the slash makes "
        "the line a question."
    )
    assert "There is no command /;" in refused(session, "/")
    assert "There is no command or picture /foo/bar;" in refused(session, "/foo/bar baz")
    handle(session, " /hlep me")
    assert session.chat.exchanges[0].question == " /hlep me"


def test_quit_leaves(session: ChatSession) -> None:
    with pytest.raises(Quit):
        handle(session, "/quit")


def test_an_image_waits_for_the_next_question(session: ChatSession, photo: Path) -> None:
    assert (
        slash_commands.run(session, "/images") == "There are no images yet; /image PATH shows one."
    )
    assert (
        slash_commands.run(session, f"/image {photo}")
        == f"{photo}, 60 x 70, goes with the next question."
    )
    assert slash_commands.run(session, "/images") == f"next question: {photo}"
    session.ask("what is this?")
    assert slash_commands.run(session, "/images") == f"question 1: {photo}"
    assert session.waiting == []
    other = session.model.chat()
    list(other.ask("what is this?", image=DOG, max_tokens=5))
    assert answers(session) == [other.exchanges[0].answer]


def test_several_images_are_shown_or_none(
    session: ChatSession, photo: Path, tmp_path: Path
) -> None:
    Image.fromarray(CAT).save(tmp_path / "cat.png")
    assert refused(session, "/image") == "/image needs the path of an image; Tab completes it."
    assert "There is no file" in refused(session, f"/image '{photo}' {tmp_path / 'bird.png'}")
    assert slash_commands.run(session, f"/image '{photo}' {tmp_path / 'cat.png'}").count("\n") == 1
    assert len(session.waiting) == 2


def test_notes_about_an_image_are_told_once(
    session: ChatSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.fromarray(picture) for picture in (DOG, CAT)]
    frames[0].save(tmp_path / "party.gif", save_all=True, append_images=frames[1:])
    assert slash_commands.run(session, f"/image {tmp_path / 'party.gif'}").endswith(
        "only the first is used."
    )
    session.ask("what is this?")
    assert capsys.readouterr().err == ""


def test_a_dropped_image_is_no_question(
    session: ChatSession, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handle(session, f"{photo}")
    handle(session, f"'{photo}' ")
    assert [picture.name for picture in session.waiting] == [str(photo)] * 2
    assert capsys.readouterr().err == f"{photo}, 60 x 70, goes with the next question.\n" * 2
    assert session.chat.exchanges == []


def test_a_picture_beside_words_goes_with_them(
    session: ChatSession, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = session.model.chat()
    list(other.ask("What colour is it?", str(photo), max_tokens=5))
    for line in (f"What colour is it? '{photo}'", f"{photo} What colour is it?"):
        handle(session, line)
        assert f"{photo}, 60 x 70, goes with this question." in capsys.readouterr().err
        asked = session.chat.exchanges.pop()
        assert (asked.question, asked.answer) == ("What colour is it?", other.exchanges[0].answer)
        assert [image.key for image in asked.images] == [
            image.key for image in other.exchanges[0].images
        ]


def test_a_picture_that_is_not_there_is_named(session: ChatSession, tmp_path: Path) -> None:
    for name in ("missing.png", str(tmp_path / "missing.jpg"), "~/missing.avif"):
        for line in (name, f"{name} What colour is it?", f"What colour is it? {name}"):
            assert refused(session, line).startswith(f"There is no picture {name};")
    address = "https://example.org/cat.png"
    assert refused(session, f"What is {address}?").startswith(f"{address} is an address")


def test_words_of_other_programs_leave(session: ChatSession) -> None:
    for line in ("exit", "quit", "/exit", "/bye", "/quit", " EXIT "[1:]):
        with pytest.raises(Quit):
            handle(session, line)
    assert slash_commands.run(session, "/?") == slash_commands.run(session, "/help")
    handle(session, "exit the room?")
    assert session.chat.exchanges[0].question == "exit the room?"


def test_undo_forgets_the_last_question(session: ChatSession, photo: Path) -> None:
    assert refused(session, "/undo") == "There is nothing to undo; no question was asked yet."
    session.ask("what is this?")
    first = answers(session)
    handle(session, f"/image {photo}")
    session.ask("and this?")
    assert (
        slash_commands.run(session, "/undo") == "Forgot the last question with 1 image: and this?"
    )
    assert answers(session) == first
    session.ask("who?")
    fresh = session.model.chat()
    for question in ("what is this?", "who?"):
        list(fresh.ask(question, max_tokens=5))
    assert answers(session) == [exchange.answer for exchange in fresh.exchanges]


def test_clear_forgets_everything_but_the_system_line(session: ChatSession, photo: Path) -> None:
    slash_commands.run(session, "/system Be brief.")
    session.ask("what is this?")
    handle(session, f"/image {photo}")
    assert slash_commands.run(session, "/clear") == "The conversation is empty."
    assert (session.chat.exchanges, session.waiting) == ([], [])
    assert slash_commands.run(session, "/system") == "Be brief."


def test_retry_asks_again_with_the_same_images(session: ChatSession, photo: Path) -> None:
    assert refused(session, "/retry") == "Nothing was asked yet; write a question first."
    handle(session, f"/image '{photo}'")
    session.ask("what is this?")
    before = session.chat.exchanges[0]
    photo.unlink()
    assert slash_commands.run(session, "/retry") == ""
    (after,) = session.chat.exchanges
    assert after is not before
    assert after == before


def test_retry_gives_another_answer_where_answers_are_drawn(session: ChatSession) -> None:
    slash_commands.run(session, "/set temperature 5")
    slash_commands.run(session, "/set max_tokens 20")
    session.ask("what is this?")
    first = answers(session)
    slash_commands.run(session, "/retry")
    assert len(session.chat.exchanges) == 1
    assert answers(session) != first


def test_a_retry_that_fails_leaves_the_answer(session: ChatSession) -> None:
    session.ask("what is this?")
    session.chat.system = "7 " * 3000
    assert "shorten it" in refused(session, "/retry")


def test_the_system_line_is_shown_and_replaced(session: ChatSession) -> None:
    assert slash_commands.run(session, "/system").startswith("Below is an instruction")
    assert slash_commands.run(session, "/system Answer in\nFrench.") == "Answer in\nFrench."
    session.ask("what is this?")
    other = session.model.chat("Answer in\nFrench.")
    list(other.ask("what is this?", max_tokens=5))
    assert answers(session) == [other.exchanges[0].answer]


def test_stats_tell_what_the_conversation_cost(session: ChatSession, photo: Path) -> None:
    model = f"model {session.model.bundle.folder}, fp32"
    assert slash_commands.run(session, "/stats").splitlines() == [
        model,
        "conversation 0 questions, 0 images, 0 of 2048 tokens",
        "last answer none yet",
    ]
    handle(session, f"/image {photo}")
    session.ask("what is this?")
    used = len(session.chat.prompt()[0])
    first, second, third = slash_commands.run(session, "/stats").splitlines()
    assert first == model
    assert second == f"conversation 1 question, 1 image, {used} of 2048 tokens"
    assert "decode 5 tokens" in third


@pytest.mark.parametrize("kv", ["", " --kv"])
def test_a_saved_conversation_is_loaded(
    kv: str, session: ChatSession, photo: Path, tmp_path: Path
) -> None:
    handle(session, f"/image {photo}")
    session.ask("what is this?")
    file = tmp_path / "my session.session"
    assert slash_commands.run(session, f"/save {file}{kv}") == f"Saved 1 question to {file}."
    before = answers(session)
    slash_commands.run(session, "/clear")
    assert slash_commands.run(session, f"/load '{file}'") == f"Loaded 1 question from {file}."
    assert answers(session) == before
    assert (
        slash_commands.run(session, f"/save {file}") == f"Saved 1 question to {file}."
    )  # over a session


def test_saving_and_loading_refuse_other_files(session: ChatSession, photo: Path) -> None:
    assert refused(session, "/save --kv").startswith("/save needs a file name")
    assert refused(session, "/load").startswith("/load needs the file of a session")
    bytes_before = photo.read_bytes()
    assert refused(session, f"/save {photo}") == (
        f"{photo} exists and is no session; give another name."
    )
    assert photo.read_bytes() == bytes_before
    assert str(photo) in refused(session, f"/load {photo}")
    assert "cannot be read" in refused(session, "/load missing.session")


def test_a_session_that_was_named_stays_when_another_is_loaded(
    session: ChatSession, tmp_path: Path
) -> None:
    first, second = tmp_path / "first.session", tmp_path / "second.session"
    session.ask("what is this?")
    slash_commands.run(session, f"/save {second}")
    session.store = SessionStore(first, named=True)
    session.ask("and this?")
    kept = first.read_bytes()
    slash_commands.run(session, f"/load {second}")
    session.ask("who?")
    assert first.read_bytes() == kept
    assert [e.question for e in session.model.open(second).exchanges] == ["what is this?", "who?"]


def test_a_store_mirrors_every_change(session: ChatSession, tmp_path: Path) -> None:
    session.store = SessionStore(tmp_path / "kept" / "last.session")

    def kept() -> list[Any]:
        opened = session.model.open(session.store.path or "")
        return [opened.system, *(exchange.question for exchange in opened.exchanges)]

    assert not session.store.exists()
    session.ask("one")
    session.ask("two")
    system = session.chat.system
    assert kept() == [system, "one", "two"]
    slash_commands.run(session, "/undo")
    assert kept() == [system, "one"]
    slash_commands.run(session, "/system Be brief.")
    assert kept() == ["Be brief.", "one"]
    slash_commands.run(session, "/clear")
    assert kept() == ["Be brief."]


def test_a_conversation_that_cannot_be_kept_is_told_once(
    session: ChatSession, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    session.store = SessionStore(tmp_path / "file" / "last.session")
    session.ask("one")
    session.ask("two")
    assert capsys.readouterr().err.count("is not kept for --continue") == 1
    session.store = SessionStore(tmp_path / "missing" / "my.session", named=True)
    with pytest.raises(BadInput, match="cannot be written"):
        session.ask("three")
    assert [exchange.question for exchange in session.chat.exchanges] == ["one", "two", "three"]
