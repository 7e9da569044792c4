"""A conversation on the web page: asked, streamed, stopped, changed, and found again."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lite
from tests.conftest import FIXTURE
from tests.lite.server.web.page import SHORT, ChatPage

BLUE, RED = (FIXTURE / "images" / name for name in ("0.png", "1.png"))
ENDLESS = {"max_tokens": 15_000}


@pytest.fixture
def long_page(open_page: Callable[..., ChatPage]) -> ChatPage:
    """A page whose answers go on for seconds."""
    return open_page(settings=ENDLESS)


def python_answers(bundle: Path, *turns: tuple[str, list[Path]]) -> list[tuple[str, Any]]:
    """Text and timings of the same conversation in Python."""
    chat = lite.load(bundle).chat()
    pieces = [[*chat.ask(text, files, max_tokens=SHORT)] for text, files in turns]
    return [("".join(p.text for p in answer), answer[-1].timings) for answer in pieces]


def test_the_page_answers_as_python_does_and_a_second_turn_pays_for_its_own_tokens(page, bundle):
    turns = [("What is in the image?", [BLUE]), ("And what else?", [])]
    expected = python_answers(bundle, *turns)
    asked = [page.ask(text, *files) for text, files in turns]
    assert [exchange["answer"] for exchange in asked] == [text for text, _ in expected]
    for exchange, (_, timings) in zip(asked, expected, strict=True):
        assert exchange["timings"]["prompt_tokens"] == timings.prompt_tokens
        assert exchange["timings"]["prefill_tokens"] == timings.prefill_tokens
    first, second = (exchange["timings"] for exchange in asked)
    assert second["prefill_tokens"] < first["prefill_tokens"] // 2


def test_under_an_answer_stands_what_it_cost(page, scene, tmp_path):
    with Image.open(scene) as picture:  # one that the server has not seen, whichever test was first
        picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirrored.png")
    page.ask("What is in the image?", tmp_path / "mirrored.png")
    assert re.fullmatch(
        rf"{SHORT} tokens[\d.]+ tokens/sfirst after [\d.]+ simage encoded in [\d.]+ s"
        r"read (\d+) of \1 prompt tokens",
        page.figures,
    )
    page.ask("And what else?")
    assert "image from cache" in page.figures


def test_an_answer_streams(long_page):
    long_page.send("Tell me a story.")
    early = long_page.wait_for_text()
    later = long_page.wait_for_text(len(early) + 50)
    assert later.startswith(early[:10])
    long_page.button("Stop").click()
    long_page.wait("stopped")


@pytest.mark.parametrize("how", ["button", "Escape"])
def test_stopping_keeps_what_came_and_the_conversation_goes_on(long_page, how):
    long_page.send("Tell me a story.")
    long_page.wait_for_text(50)
    if how == "button":
        long_page.button("Stop").click()
    else:
        long_page.tab.keyboard.press(how)
    stopped = long_page.wait("stopped")
    assert len(stopped["answer"]) >= 50
    with long_page.tab.expect_request("**/v1/chat/completions") as request:
        long_page.send("Go on.")
    said = request.value.post_data_json["messages"]
    assert [message["content"] for message in said] == [
        "Tell me a story.",
        stopped["answer"],
        "Go on.",
    ]
    long_page.wait_for_text()
    long_page.button("Stop").click()
    long_page.wait("stopped")


def test_a_reload_continues_where_it_was(page, bundle):
    turns = [("What is in the image?", [BLUE]), ("And what else?", [])]
    expected = python_answers(bundle, *turns)
    page.ask("What is in the image?", BLUE)
    page.tab.reload()
    page.tab.wait_for_selector(".pictures img")
    assert page.questions.all_text_contents() == ["What is in the image?"]
    second = page.ask("And what else?")
    text, timings = expected[1]
    assert second["answer"] == text
    assert second["timings"]["prefill_tokens"] == timings.prefill_tokens


def test_a_reload_in_mid_answer_keeps_what_was_written(long_page):
    long_page.send("Tell me a story.", BLUE)
    long_page.wait_for_text(200)
    long_page.tab.wait_for_timeout(600)  # what is written is kept every 0.4 s
    long_page.tab.reload()
    left = long_page.wait("left")
    assert len(left["answer"]) >= 200
    assert "The page was closed" in long_page.tab.text_content("article.last .end")
    with long_page.tab.expect_request("**/v1/chat/completions") as request:
        long_page.send("Go on.")
    assert request.value.post_data_json["messages"][1]["content"] == left["answer"]
    long_page.wait_for_text()
    long_page.button("Stop").click()
    long_page.wait("stopped")


def test_an_edited_question_drops_what_follows_and_is_asked_again(page):
    page.ask("What is this?", BLUE)
    page.ask("And that?")
    page.tab.fill("#question", "a draft")
    page.button("Edit the question").first.click()
    assert page.tab.input_value("#question") == "What is this?"
    assert page.thumbnails.count() == 1
    page.send("How many are there?")
    edited = page.wait()
    assert page.questions.all_text_contents() == ["How many are there?"]
    assert [e["question"] for e in page.exchanges] == ["How many are there?"]
    assert edited["timings"]["images_cached"] == 1
    assert page.tab.input_value("#question") == "a draft"


def test_an_edit_can_be_cancelled(page):
    page.ask("What is this?")
    page.button("Edit the question").click()
    page.tab.keyboard.press("Escape")
    assert not page.editing
    assert page.tab.input_value("#question") == ""
    assert page.questions.all_text_contents() == ["What is this?"]


def test_retry_asks_the_last_question_again(open_page):
    page = open_page(settings={"temperature": 1.5})
    page.ask("What is this?", BLUE)
    first = page.ask("And that?")["answer"]
    page.button("Retry").last.click()
    page.until(lambda: page.questions.count() == 2)
    second = page.wait()["answer"]
    assert page.questions.all_text_contents() == ["What is this?", "And that?"]
    assert second != first


def test_any_question_can_be_asked_again_and_what_followed_comes_back(page):
    asked = [page.ask(question) for question in ("What is this?", "And that?", "And those?")]
    page.button("Retry").nth(1).click()
    page.until(lambda: page.questions.count() == 2)
    again = page.wait()
    assert again["question"] == "And that?"
    assert again["answer"] == asked[1]["answer"]  # at temperature 0
    page.button("Undo").click()
    page.until(lambda: page.questions.count() == 3)
    page.until(lambda: page.exchanges == asked)


def test_several_images_are_shown_in_their_turn_and_reach_the_model(page, bundle):
    page.attach(BLUE, RED)
    page.attach(BLUE)
    page.button("Remove 0.png").first.click()
    assert page.thumbnails.count() == 2
    asked = page.ask("Which one is larger?")
    assert page.tab.locator(".pictures img").count() == 2
    assert asked["answer"] == python_answers(bundle, ("Which one is larger?", [RED, BLUE]))[0][0]
    assert asked["timings"]["images_computed"] + asked["timings"]["images_cached"] == 2


def test_conversations_are_listed_renamed_and_deleted_with_undo(page):
    page.ask("The first question", BLUE)
    page.button("New conversation").click()
    page.ask("The second question")
    page.until(lambda: page.names == ["The second question", "The first question"])

    page.button("The first question").click()
    page.tab.wait_for_selector(".pictures img")
    page.tab.locator("#sessions li").nth(1).hover()
    page.button("Rename The first question").click()
    page.tab.keyboard.type("Hills")
    page.tab.keyboard.press("Enter")
    page.tab.get_by_role("heading", name="Hills", level=1).wait_for()
    page.until(lambda: page.names == ["Hills", "The second question"])

    page.tab.locator("#sessions li").first.hover()
    page.button("Delete Hills").click()
    page.until(lambda: page.names == ["The second question"])
    page.button("Undo").click()
    page.tab.wait_for_selector(".pictures img")
    page.until(lambda: page.names == ["Hills", "The second question"])


def test_the_list_is_searched_by_every_word_of_titles_questions_and_answers(page, tmp_path):
    page.import_conversation(tmp_path / "Boats.json", {"question": "Which?", "answer": "A ferry."})
    page.import_conversation(tmp_path / "Trees.json", {"question": "How tall?", "answer": "Oaks."})
    search = page.tab.get_by_label("Search the conversations")
    for words, names in (
        ("boats", ["Boats"]),
        ("FERRY which", ["Boats"]),
        ("tall", ["Trees"]),
        ("tall ferry", []),
        (" ", ["Trees", "Boats"]),
    ):
        search.fill(words)
        page.until(lambda names=names: page.names == names)
        assert page.tab.is_visible("#none-found") == (names == [])


def test_a_deleted_conversation_leaves_nothing_behind(page):
    page.ask("The first question", BLUE)
    page.tab.locator("#sessions li").hover()
    page.button("Delete The first question").click()
    page.toast.wait_for()
    page.tab.evaluate("document.getElementById('toast').leave()")  # as it does after a while
    page.until(lambda: page.names == [])
    page.until(lambda: page.stored() == [])
    assert page.stored("images") == []


def test_an_answer_goes_on_while_another_conversation_is_shown(long_page):
    long_page.send("Tell me a story.")
    before = len(long_page.wait_for_text())
    long_page.button("New conversation").click()
    long_page.tab.wait_for_selector("#empty")
    long_page.button("Tell me a story.").click()
    long_page.wait_for_text(before + 200)
    long_page.button("Stop").click()
    long_page.wait("stopped")


def test_a_conversation_travels_as_a_file(page, tmp_path):
    asked = page.ask("What is this?", BLUE)
    page.tab.locator("#sessions li").hover()
    with page.tab.expect_download() as download:
        page.button("Export What is this?").click()
    download.value.save_as(tmp_path / "this.json")
    page.tab.set_input_files("#import-file", tmp_path / "this.json")
    page.until(lambda: len(page.names) == 2)
    page.tab.wait_for_selector(".pictures img")
    assert page.exchanges[0]["answer"] == asked["answer"]
    assert page.ask("And that?")["timings"]["images_cached"] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"format": "mmgpt-lite conversation", "version": 1}'])
def test_a_foreign_file_is_refused_in_one_sentence(page, tmp_path, text):
    (tmp_path / "foreign.json").write_text(text)
    page.tab.set_input_files("#import-file", tmp_path / "foreign.json")
    page.toast.wait_for()
    assert "no conversation that was exported here" in page.toast.text_content()
    page.until(lambda: page.names == [])


def test_a_file_too_large_to_read_is_refused_in_one_sentence(page, tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate((256 << 20) + 1)
    page.tab.set_input_files("#import-file", tmp_path / "large.json")
    page.toast.wait_for()
    assert "larger than 256 MB" in page.toast.text_content()


def test_a_second_tab_follows_the_first(page):
    page.ask("What is this?", BLUE)
    second = page.open_tab()
    assert second.locator(".question-text").all_text_contents() == ["What is this?"]
    page.ask("And that?")
    second.locator(".question-text").nth(1).wait_for()
