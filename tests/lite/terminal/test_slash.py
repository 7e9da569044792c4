"""The slash commands: what each tells, and what it does to the conversation."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lite
from lite.errors import BadInput
from lite.terminal import slash
from lite.terminal.chat_session import Talk
from lite.terminal.repl import handle
from lite.terminal.session_store import Home
from lite.terminal.slash import COMMANDS, Leave
from tests.lite.conftest import CAT, DOG
from tests.one_sentence import check_one_sentence

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
def talk(model: Callable[..., lite.Model]) -> Talk:
    opened = model()
    return Talk(opened, opened.chat(), dict(SETTINGS))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(DOG).save(tmp_path / "my dog.png")
    return tmp_path / "my dog.png"


def refused(talk: Talk, line: str) -> str:
    """The sentence that refuses a line; the conversation stays as it was."""
    before = [*talk.chat.exchanges], [*talk.waiting], talk.settings, talk.chat.system
    with pytest.raises(BadInput) as refusal:
        handle(talk, line)
    assert before == (talk.chat.exchanges, talk.waiting, talk.settings, talk.chat.system)
    check_one_sentence(refusal)
    return str(refusal.value)


def answers(talk: Talk) -> list[str]:
    return [exchange.answer for exchange in talk.chat.exchanges]


def test_set_shows_and_changes_settings(talk: Talk) -> None:
    assert slash.run(talk, "/set") == (
        "max_tokens 5\ntemperature 0.0\ntop_k 0\ntop_p 1.0\nmin_p 0.0\nrepetition_penalty 1.0\n"
        "seed none"
    )
    assert slash.run(talk, "/set temperature") == "temperature 0.0"
    assert slash.run(talk, "/set temperature 0.2") == "temperature 0.2"
    assert slash.run(talk, "/set top_k  40 ") == "top_k 40"
    assert slash.run(talk, "/set seed 7") == "seed 7"
    assert slash.run(talk, "/set seed none") == "seed none"
    assert slash.run(talk, "/set max_tokens 3") == "max_tokens 3"
    assert talk.settings == SETTINGS | {"temperature": 0.2, "top_k": 40, "max_tokens": 3}
    talk.ask("what is this?")
    assert len(talk.chat.exchanges[0].answer_ids) == 3


def test_set_refuses_what_no_answer_could_use(talk: Talk) -> None:
    assert refused(talk, "/set temprature 1") == (
        "There is no setting temprature, the nearest is temperature; /set alone shows all."
    )
    assert refused(talk, "/set top_k 0.5") == "top_k must be a whole number, not 0.5."
    assert refused(talk, "/set top_p much") == "top_p must be a number, not much."
    assert refused(talk, "/set top_p 3") == "top_p is 3.0; give a value from 0.0 to 1.0."
    assert refused(talk, "/set temperature nan").startswith("temperature is nan; give a value")
    assert refused(talk, "/set seed -1") == "seed is -1; give a whole number from 0."
    assert refused(talk, "/set max_tokens 0") == "max_tokens is 0; give a number from 1."


def test_help_lists_every_command(talk: Talk) -> None:
    lines = slash.run(talk, "/help").splitlines()
    assert [line.split()[0] for line in lines[: len(COMMANDS)]] == list(COMMANDS)
    assert "/save FILE [--kv]    save the conversation; --kv: with its KV cache" in lines


def test_an_unknown_command_names_the_nearest(talk: Talk) -> None:
    assert refused(talk, "/hlep me") == (
        "There is no command /hlep, the nearest is /help; /help shows all, and a space before the "
        "slash makes the line a question."
    )
    assert "the nearest is /image;" in refused(talk, "/img x.png")
    assert "There is no command /," in refused(talk, "/")
    handle(talk, " /hlep me")
    assert talk.chat.exchanges[0].question == " /hlep me"


def test_quit_leaves(talk: Talk) -> None:
    with pytest.raises(Leave):
        handle(talk, "/quit")


def test_an_image_waits_for_the_next_question(talk: Talk, photo: Path) -> None:
    assert slash.run(talk, "/images") == "There are no images yet; /image PATH shows one."
    assert slash.run(talk, f"/image {photo}") == f"{photo}, 60 x 70, goes with the next question."
    assert slash.run(talk, "/images") == f"next question: {photo}"
    talk.ask("what is this?")
    assert slash.run(talk, "/images") == f"question 1: {photo}"
    assert talk.waiting == []
    other = talk.model.chat()
    list(other.ask("what is this?", image=DOG, max_tokens=5))
    assert answers(talk) == [other.exchanges[0].answer]


def test_several_images_are_shown_or_none(talk: Talk, photo: Path, tmp_path: Path) -> None:
    Image.fromarray(CAT).save(tmp_path / "cat.png")
    assert refused(talk, "/image") == "/image needs the path of an image; Tab completes it."
    assert "There is no file" in refused(talk, f"/image '{photo}' {tmp_path / 'bird.png'}")
    assert slash.run(talk, f"/image '{photo}' {tmp_path / 'cat.png'}").count("\n") == 1
    assert len(talk.waiting) == 2


def test_notes_about_an_image_are_told_once(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = [Image.fromarray(picture) for picture in (DOG, CAT)]
    frames[0].save(tmp_path / "party.gif", save_all=True, append_images=frames[1:])
    assert slash.run(talk, f"/image {tmp_path / 'party.gif'}").endswith("only the first is used.")
    talk.ask("what is this?")
    assert capsys.readouterr().err == ""


def test_a_dropped_image_is_no_question(
    talk: Talk, photo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handle(talk, f"{photo}")
    handle(talk, f"'{photo}' ")
    assert [picture.name for picture in talk.waiting] == [str(photo)] * 2
    assert capsys.readouterr().err == f"{photo}, 60 x 70, goes with the next question.\n" * 2
    assert talk.chat.exchanges == []


def test_undo_forgets_the_last_question(talk: Talk, photo: Path) -> None:
    assert refused(talk, "/undo") == "There is nothing to undo; no question was asked yet."
    talk.ask("what is this?")
    first = answers(talk)
    handle(talk, f"/image {photo}")
    talk.ask("and this?")
    assert slash.run(talk, "/undo") == "Forgot the last question with 1 image: and this?"
    assert answers(talk) == first
    talk.ask("who?")
    fresh = talk.model.chat()
    for question in ("what is this?", "who?"):
        list(fresh.ask(question, max_tokens=5))
    assert answers(talk) == [exchange.answer for exchange in fresh.exchanges]


def test_clear_forgets_everything_but_the_system_line(talk: Talk, photo: Path) -> None:
    slash.run(talk, "/system Be brief.")
    talk.ask("what is this?")
    handle(talk, f"/image {photo}")
    assert slash.run(talk, "/clear") == "The conversation is empty."
    assert (talk.chat.exchanges, talk.waiting) == ([], [])
    assert slash.run(talk, "/system") == "Be brief."


def test_retry_asks_again_with_the_same_images(talk: Talk, photo: Path) -> None:
    assert refused(talk, "/retry") == "Nothing was asked yet; write a question first."
    handle(talk, f"/image '{photo}'")
    talk.ask("what is this?")
    before = talk.chat.exchanges[0]
    photo.unlink()
    assert slash.run(talk, "/retry") == ""
    (after,) = talk.chat.exchanges
    assert after is not before
    assert after == before


def test_retry_gives_another_answer_where_answers_are_drawn(talk: Talk) -> None:
    slash.run(talk, "/set temperature 5")
    slash.run(talk, "/set max_tokens 20")
    talk.ask("what is this?")
    first = answers(talk)
    slash.run(talk, "/retry")
    assert len(talk.chat.exchanges) == 1
    assert answers(talk) != first


def test_a_retry_that_fails_leaves_the_answer(talk: Talk) -> None:
    talk.ask("what is this?")
    talk.chat.system = "7 " * 3000
    assert "shorten it" in refused(talk, "/retry")


def test_the_system_line_is_shown_and_replaced(talk: Talk) -> None:
    assert slash.run(talk, "/system").startswith("Below is an instruction")
    assert slash.run(talk, "/system Answer in\nFrench.") == "Answer in\nFrench."
    talk.ask("what is this?")
    other = talk.model.chat("Answer in\nFrench.")
    list(other.ask("what is this?", max_tokens=5))
    assert answers(talk) == [other.exchanges[0].answer]


def test_stats_tell_what_the_conversation_cost(talk: Talk, photo: Path) -> None:
    model = f"model {talk.model.bundle.folder}, fp32"
    assert slash.run(talk, "/stats").splitlines() == [
        model,
        "conversation 0 questions, 0 images, 0 of 2048 tokens",
        "last answer none yet",
    ]
    handle(talk, f"/image {photo}")
    talk.ask("what is this?")
    used = len(talk.chat.prompt()[0])
    first, second, third = slash.run(talk, "/stats").splitlines()
    assert first == model
    assert second == f"conversation 1 question, 1 image, {used} of 2048 tokens"
    assert "decode 5 tokens" in third


@pytest.mark.parametrize("kv", ["", " --kv"])
def test_a_saved_conversation_is_loaded(kv: str, talk: Talk, photo: Path, tmp_path: Path) -> None:
    handle(talk, f"/image {photo}")
    talk.ask("what is this?")
    file = tmp_path / "my talk.session"
    assert slash.run(talk, f"/save {file}{kv}") == f"Saved 1 question to {file}."
    before = answers(talk)
    slash.run(talk, "/clear")
    assert slash.run(talk, f"/load '{file}'") == f"Loaded 1 question from {file}."
    assert answers(talk) == before
    assert slash.run(talk, f"/save {file}") == f"Saved 1 question to {file}."  # over a session


def test_saving_and_loading_refuse_other_files(talk: Talk, photo: Path) -> None:
    assert refused(talk, "/save --kv").startswith("/save needs a file name")
    assert refused(talk, "/load").startswith("/load needs the file of a session")
    bytes_before = photo.read_bytes()
    assert refused(talk, f"/save {photo}") == (
        f"{photo} exists and is no session; give another name."
    )
    assert photo.read_bytes() == bytes_before
    assert str(photo) in refused(talk, f"/load {photo}")
    assert "cannot be read" in refused(talk, "/load missing.session")


def test_a_session_that_was_named_stays_when_another_is_loaded(talk: Talk, tmp_path: Path) -> None:
    first, second = tmp_path / "first.session", tmp_path / "second.session"
    talk.ask("what is this?")
    slash.run(talk, f"/save {second}")
    talk.home = Home(first, named=True)
    talk.ask("and this?")
    kept = first.read_bytes()
    slash.run(talk, f"/load {second}")
    talk.ask("who?")
    assert first.read_bytes() == kept
    assert [e.question for e in talk.model.open(second).exchanges] == ["what is this?", "who?"]


def test_a_home_mirrors_every_change(talk: Talk, tmp_path: Path) -> None:
    talk.home = Home(tmp_path / "kept" / "last.session")

    def kept() -> list[Any]:
        opened = talk.model.open(talk.home.path or "")
        return [opened.system, *(exchange.question for exchange in opened.exchanges)]

    assert not talk.home.exists()
    talk.ask("one")
    talk.ask("two")
    system = talk.chat.system
    assert kept() == [system, "one", "two"]
    slash.run(talk, "/undo")
    assert kept() == [system, "one"]
    slash.run(talk, "/system Be brief.")
    assert kept() == ["Be brief.", "one"]
    slash.run(talk, "/clear")
    assert kept() == ["Be brief."]


def test_a_conversation_that_cannot_be_kept_is_told_once(
    talk: Talk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    talk.home = Home(tmp_path / "file" / "last.session")
    talk.ask("one")
    talk.ask("two")
    assert capsys.readouterr().err.count("is not kept for --continue") == 1
    talk.home = Home(tmp_path / "missing" / "my.session", named=True)
    with pytest.raises(BadInput, match="cannot be written"):
        talk.ask("three")
    assert [exchange.question for exchange in talk.chat.exchanges] == ["one", "two", "three"]
