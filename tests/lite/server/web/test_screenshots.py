"""What the page looks like with the demo model; with MMGPT_LITE_SCREENSHOTS set, kept there."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lite.server.web.page import ChatPage

EXAMPLES = Path(__file__).parents[4] / "examples"
MAX_BYTES = 400_000
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
    open_page: Callable[..., ChatPage], demo_address: str, album: Path, look: str
) -> None:
    page = open_page(demo_address, **LOOKS[look])
    if look == "desktop-light":
        for question, name in (("What is in the picture?", "park"), ("How many cats?", "sign")):
            page.ask(question, EXAMPLES / f"{name}.png")
            page.button("New conversation").click()
    page.tab.locator(".example").first.click()
    page.wait()
    if look == "desktop-dark":
        page.ask("And in this one?", EXAMPLES / "garden.png")
    else:
        page.ask("What does the animal in the picture say?")
    page.tab.mouse.move(0, 0)
    page.tab.screenshot(path=album / f"{look}.png")
    assert (album / f"{look}.png").stat().st_size < MAX_BYTES
