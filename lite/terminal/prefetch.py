"""Work on the next question while the person types it.

Contract: one piece of work at a time, on a thread of its own; whoever needs the model waits for it
first. It makes the first token come sooner and nothing else: an error here comes again, and is
reported, where the question is asked. Messages wait until nobody types.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lite.cli import BACKGROUND, say

if TYPE_CHECKING:
    from lite.chat.chat import Chat
    from lite.chat.images import ImageInput

POLL_SECONDS = 0.05


class Prefetch:
    """The work under way, if any."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._progress: tuple[str, int, int] | None = None
        self._messages: list[str] = []

    def start(self, chat: Chat, images: Sequence[ImageInput]) -> None:
        """Start on what a question about `images` needs, after the work already under way."""
        previous, images = self._thread, [*images]

        def work() -> None:
            if previous is not None:
                previous.join()
            with suppress(Exception):
                chat.prepare(images, progress=self._report)

        self._thread = threading.Thread(target=work, name=BACKGROUND, daemon=True)
        self._thread.start()

    def wait(self, progress: Callable[[str, int, int], None]) -> None:
        """Wait until it is done; `progress` is called as `Chat.ask` does."""
        thread = self._thread
        while thread is not None and thread.is_alive():
            self._flush()
            if self._progress is not None:
                progress(*self._progress)
            thread.join(POLL_SECONDS)
        self._flush()
        self._thread = self._progress = None

    def say(self, message: str) -> None:
        """Print a message; one of the background thread waits for `wait`."""
        if threading.current_thread() is threading.main_thread():
            say(message)
        else:
            self._messages.append(message)

    def _report(self, what: str, done: int, total: int) -> None:
        self._progress = (what, done, total)

    def _flush(self) -> None:
        while self._messages:
            say(self._messages.pop(0))
