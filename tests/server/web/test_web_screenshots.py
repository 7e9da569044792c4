"""What the page looks like; with MMGPT_LITE_SCREENSHOTS set to a folder, kept there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.web.page import ChatPage

MAX_BYTES = 200_000
TOKENS = 12
LOOKS: dict[str, dict[str, Any]] = {
    "desktop-light": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light"},
    "desktop-dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = Path(os.environ.get("MMGPT_LITE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.mark.parametrize("look", LOOKS)
def test_the_page_is_drawn(
    open_page: Callable[..., ChatPage], album: Path, scene: Path, beach: Path, look: str
) -> None:
    page = open_page(settings={"max_tokens": TOKENS}, **LOOKS[look])
    if look == "desktop-light":
        for question in ("Which of the two is older?", "Read the sign to me"):
            page.ask(question, beach)
            page.button("New conversation").click()
    page.ask("What is in the picture?", scene)
    if look == "desktop-dark":
        page.ask("Which of them was taken at the sea?", scene, beach)
    else:
        page.ask("And what is behind the house?")
    page.tab.mouse.move(0, 0)
    page.tab.screenshot(path=album / f"{look}.png")
    assert (album / f"{look}.png").stat().st_size < MAX_BYTES
