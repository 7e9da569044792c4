"""The page opens whatever is stored in the browser, and while its server is down."""

import json
from typing import Any

import pytest

from tests.conftest import FIXTURE
from tests.lite.server.conftest import serving
from tests.lite.server.web.page import ChatPage

BLUE = FIXTURE / "images" / "0.png"
DEEP = 1600
STORE = """(session) => new Promise((resolve) => {
  const opening = indexedDB.open("mmgpt-lite");
  opening.onsuccess = () => {
    const work = opening.result.transaction("sessions", "readwrite");
    work.objectStore("sessions").put(session);
    work.oncomplete = () => { opening.result.close(); resolve(); };
  };
})"""


@pytest.mark.parametrize(
    "answer",
    [
        "\n".join("  " * depth + "- x" for depth in range(DEEP)),
        "- " * DEEP + "x",
        ">" * DEEP + " x",
        "*a **b " * DEEP + "x" + " b** a*" * DEEP,
        "[" * DEEP + "x" + "](y)" * DEEP,
    ],
    ids=["list", "list on one line", "quotes", "emphasis", "links"],
)
def test_an_answer_of_any_depth_is_shown_and_found_again(page, tmp_path, answer):
    page.import_conversation(tmp_path / "Deep.json", {"question": "Why?", "answer": answer})
    page.tab.reload()
    page.tab.get_by_role("heading", name="Deep", level=1).wait_for()
    assert "x" in page.answers.text_content()
    depth = """(box) => Math.max(...[...box.querySelectorAll("*")].map((node) => {
      let depth = 0;
      for (let at = node; at !== box; at = at.parentElement) depth++;
      return depth;
    }))"""
    assert page.answers.evaluate(depth) <= 100
    assert page.exchanges[0]["answer"] == answer


def test_of_a_text_without_end_the_beginning_is_shown_and_the_rest_counted(page, tmp_path):
    long = {"question": "q" * 250_000, "answer": "a" * 1_000_000}
    page.import_conversation(tmp_path / "Long.json", long)
    assert page.questions.text_content() == (
        "q" * 200_000 + " (50000 more characters are stored and not shown)"
    )
    assert page.answers.text_content().endswith("(800000 more characters are stored and not shown)")
    assert page.exchanges[0]["answer"] == long["answer"]


def test_of_a_long_conversation_the_end_is_drawn_and_more_at_a_click(page, tmp_path):
    rows = [{"question": f"Question {n}", "answer": "Yes."} for n in range(250)]
    page.import_conversation(tmp_path / "Many.json", *rows)
    assert page.questions.count() == 100
    page.button("Show earlier questions (150)").click()
    page.button("Show earlier questions (50)").click()
    assert page.questions.all_text_contents() == [row["question"] for row in rows]


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"exchanges": None, "title": "x", "updated": 1},
        {"exchanges": [{"question": 3}], "title": "x", "updated": "yesterday"},
        {"exchanges": [[[]]], "title": {"a": 1}, "deleted": 1},
        {"exchanges": [{"question": "?", "answer": "!", "images": [{}], "notes": []}], "title": ""},
    ],
)
def test_a_broken_conversation_is_listed_and_keeps_nothing_from_opening(
    page: ChatPage, broken: dict[str, Any]
) -> None:
    page.ask("What is this?", BLUE)
    page.tab.evaluate(STORE, {"id": "broken", **broken})
    page.tab.evaluate("localStorage.setItem('mmgpt-lite.session', 'broken')")
    page.reload()
    page.tab.wait_for_selector("#empty")
    if not broken.get("deleted"):
        assert "cannot be read" in page.toast.text_content()
        page.until(lambda: "Unreadable conversation" in page.names)
        page.tab.locator("#sessions li").filter(has_text="Unreadable").hover()
        page.button("Delete Unreadable conversation").click()
    page.until(lambda: page.names == ["What is this?"])
    page.button("What is this?").click()
    page.tab.wait_for_selector(".pictures img")
    assert page.ask("And that?")["state"] == "done"


def test_a_conversation_whose_opening_ended_the_page_is_not_opened_by_itself_again(page):
    page.ask("What is this?")
    shown = page.tab.evaluate("location.hash.slice(1)")
    page.tab.evaluate(f"localStorage.setItem('mmgpt-lite.opening', {json.dumps(shown)})")
    page.tab.reload()
    page.tab.wait_for_selector("#empty")
    assert "could not be shown" in page.toast.text_content()
    page.button("What is this?").click()
    page.until(lambda: page.questions.all_text_contents() == ["What is this?"])


def test_the_page_opens_while_its_server_is_down(open_page, bundle):
    with serving(bundle) as served:
        page = open_page(served.url + "/")
        asked = page.ask("What is this?", BLUE)
        page.until(lambda: page.tab.evaluate("caches.match('./messages.js').then(Boolean)"))
        assert not page.tab.is_visible("#offline")
    page.expected = ("ERR_CONNECTION_REFUSED", "ERR_FAILED")
    page.tab.reload()
    page.tab.wait_for_selector("#offline:visible")
    assert "cannot be reached" in page.tab.text_content("#offline")
    page.tab.wait_for_selector(".pictures img")
    assert page.questions.all_text_contents() == ["What is this?"]
    assert page.answers.text_content() == asked["answer"]
    page.send("And that?")
    assert "cannot be reached" in page.wait("failed")["error"]
