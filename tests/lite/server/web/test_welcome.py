"""The first minute with the demo model: what it knows, what to try, and a hint at photographs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lite.server
from lite import demo
from tests.lite.server.web.page import ChatPage

EXAMPLES = Path(__file__).parents[4] / "examples"
WEB = Path(lite.server.__file__).parent / "web"
# As the pictures were composed.
TRUTHS = {
    turns[0]["images"][0]: {turn["question"]: turn["truth"] for turn in turns}
    for turns in json.loads((EXAMPLES / "conversations.json").read_text())
}
# What an answer must hold, and the truth as well.
KEYS = {"tiger.png": "tiger", "sign.png": "CAFE", "farm.png": "two sheep"}


@pytest.fixture
def demo_page(open_page: Callable[..., ChatPage], demo_address: str) -> ChatPage:
    page = open_page(demo_address)
    page.tab.locator(".example").first.wait_for()
    return page


def test_the_page_says_what_the_demo_model_knows_as_the_terminal_does(demo_page):
    assert demo_page.tab.text_content("#about") == demo.NOTICE


def test_another_model_has_neither_notice_nor_examples(page):
    page.until(lambda: "Answers come from tiny" in page.tab.text_content("#about"))
    assert page.tab.locator(".example").count() == 0


@pytest.mark.parametrize("number", range(3))
def test_each_example_is_answered_right_at_a_click(demo_page, number):
    demo_page.tab.locator(".example").nth(number).click()
    asked = demo_page.wait()
    name = asked["images"][0]["name"]
    key = KEYS[name]
    assert key in TRUTHS[name][asked["question"]]
    assert key in asked["answer"]
    assert asked["notes"] == []


def test_the_examples_of_the_page_are_those_of_the_project():
    shipped = sorted((WEB / "examples").iterdir())
    assert [path.name for path in shipped] == sorted(KEYS)
    for path in shipped:
        assert path.read_bytes() == (EXAMPLES / path.name).read_bytes()


def test_a_photograph_gets_a_hint_beside_its_answer(demo_page, tmp_path):
    noise = np.random.default_rng(0).normal(0, 12, (300, 400, 3))
    slope = np.linspace(40, 200, 400)[None, :, None]
    Image.fromarray((slope + noise).clip(0, 255).astype("uint8")).save(tmp_path / "photo.jpg")
    for question in ("What is in the picture?", "And now?"):
        demo_page.ask(question, tmp_path / "photo.jpg")
        hint = demo_page.tab.text_content("article.last .notes")
        assert "drawn scenes only" in hint
    demo_page.ask("How many are there?")
    assert demo_page.tab.text_content("article.last .notes") == ""
    demo_page.button("Retry").nth(1).click()
    demo_page.until(lambda: demo_page.questions.count() == 2)
    demo_page.wait()
    assert "drawn scenes only" in demo_page.tab.text_content("article.last .notes")


def test_another_model_says_nothing_of_photographs(page, scene):
    assert page.ask("What is in the picture?", scene)["notes"] == []
