"""The page as its user knows it: what can be done on it, and what it shows and keeps."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 20  # seconds
SHORT = 24  # tokens, where the answer does not matter
STORED = """(store) => new Promise((resolve) => {
  const opening = indexedDB.open("mmgpt-lite");
  opening.onsuccess = () => {
    const reading = opening.result.transaction(store).objectStore(store).getAll();
    reading.onsuccess = () => { opening.result.close(); resolve(reading.result); };
  };
})"""
# Not on the empty page that a tab begins with, which has no storage.
REMEMBER = "location.host && (localStorage.getItem({0}) ?? localStorage.setItem({0}, {1}))"


def _until_it_listens(tab: Any) -> None:
    """Until the page shows a session, whose id it puts into its address."""
    until(lambda: tab.evaluate("location.hash.length > 1"), tab)


class ChatPage:
    """One page in a browser context of its own.

    Attributes:
        tab: Playwright's page.
        expected: parts of the console errors that a test provokes.
    """

    def __init__(
        self, browser: Any, url: str, settings: dict[str, Any] | None = None, **context: Any
    ) -> None:
        self.url = url
        self.context = browser.new_context(**context)
        self.context.set_default_timeout(PATIENCE * 1000)
        values = json.dumps(json.dumps({"max_tokens": SHORT, **(settings or {})}))
        self.context.add_init_script(REMEMBER.format('"mmgpt-lite.settings"', values))
        self.expected: tuple[str, ...] = ()
        self._errors: list[str] = []
        self._requests: list[str] = []
        self.context.on("request", lambda request: self._requests.append(request.url))
        self.context.on("weberror", lambda error: self._errors.append(str(error.error)))
        self.context.on("console", self._heard)
        self.tab = self.open_tab()

    def open_tab(self) -> Any:
        tab = self.context.new_page()
        tab.goto(self.url)
        _until_it_listens(tab)
        return tab

    def reload(self) -> None:
        self.tab.evaluate("history.replaceState(null, '', location.pathname)")
        self.tab.reload()
        _until_it_listens(self.tab)

    def close(self) -> None:
        self.context.close()
        unexpected = [e for e in self._errors if not any(part in e for part in self.expected)]
        assert unexpected == [], unexpected
        own = (self.url, f"blob:{self.url}", "data:")
        foreign = [url for url in self._requests if not url.startswith(own)]
        assert foreign == [], foreign

    def attach(self, *files: Path) -> None:
        before = self.thumbnails.count()
        self.tab.set_input_files("#files", [*files])
        self.thumbnails.nth(before + len(files) - 1).wait_for()

    def import_conversation(self, path: Path, *exchanges: dict[str, Any]) -> None:
        """Import exchanges, each of which names its question and its answer, by a file."""
        whole = {"format": "mmgpt-lite conversation", "version": 1, "title": path.stem}
        rows = [{"images": [], "notes": [], **exchange} for exchange in exchanges]
        path.write_text(json.dumps({**whole, "created": 1, "exchanges": rows, "images": {}}))
        self.tab.set_input_files("#import-file", path)
        self.tab.get_by_role("heading", name=path.stem, level=1).wait_for()

    def send(self, question: str, *files: Path) -> None:
        """Ask; returns when the question is shown."""
        if files:
            self.attach(*files)
        count = self.questions.count() if not self.editing else 0
        self.tab.fill("#question", question)
        self.tab.keyboard.press("Enter")
        self.questions.nth(count).wait_for()

    def ask(self, question: str, *files: Path) -> dict[str, Any]:
        """Ask; returns the exchange that is kept when the answer is over."""
        self.send(question, *files)
        return self.wait()

    def wait(self, state: str = "done") -> dict[str, Any]:
        """Until the last exchange is in that state, shown and kept; returns it."""
        self.tab.wait_for_selector(f"article.last[data-state={state}]")
        self.tab.wait_for_selector("#stop", state="hidden")
        return self.exchanges[-1]

    def wait_for_text(self, length: int = 1) -> str:
        """Until the answer being written has so many characters; returns them."""
        self.tab.wait_for_selector("article.last[data-state=asking]")
        self.until(lambda: len(self.answers.last.text_content()) >= length)
        return str(self.answers.last.text_content())

    def until(self, true: Callable[[], bool]) -> None:
        until(true, self.tab)

    def stored(self, name: str = "sessions") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.tab.evaluate(STORED, name)
        return found

    @property
    def exchanges(self) -> list[dict[str, Any]]:
        """Those of the session that is shown, as the browser keeps them."""
        shown = self.tab.evaluate("location.hash.slice(1)")
        return next((s["exchanges"] for s in self.stored() if s["id"] == shown), [])

    @property
    def editing(self) -> bool:
        return bool(self.tab.is_visible("#editing"))

    @property
    def questions(self) -> Any:
        return self.tab.locator(".question-text")

    @property
    def answers(self) -> Any:
        return self.tab.locator(".answer-text")

    @property
    def thumbnails(self) -> Any:
        return self.tab.locator("#attached img")

    @property
    def figures(self) -> str:
        return str(self.tab.locator("article.last .figures").text_content())

    @property
    def names(self) -> list[str]:
        """Of the conversations in the list."""
        found: list[str] = self.tab.locator("#sessions .session").all_text_contents()
        return found

    @property
    def error(self) -> Any:
        return self.tab.locator("article.last .error")

    @property
    def toast(self) -> Any:
        return self.tab.locator("#toast")

    def button(self, name: str) -> Any:
        return self.tab.get_by_role("button", name=name, exact=True)

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self._errors.append(message.text)


def until(true: Callable[[], bool], tab: Any) -> None:
    """Wait in the browser's time; Playwright's own wait for a function needs the page's eval."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        tab.wait_for_timeout(20)
