"""Work on the next question while the person types it.

Contract: one piece of work at a time, on a thread of its own; whoever needs the model waits for it
first. It makes the first token come sooner and nothing else: what goes wrong here goes wrong again,
and is reported, where the question is asked. What there is to say waits until nobody types.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from lite.cli import BACKGROUND, say

if TYPE_CHECKING:
    from lite.chat.chat import Chat, ImageSource

# Seconds between two looks at how far the work is.
LOOK = 0.05


class Early:
    """The work that is under way, if any."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._at: tuple[str, int, int] | None = None
        self._said: list[str] = []

    def begin(self, chat: Chat, images: Sequence[ImageSource]) -> None:
        """Start on what a question about `images` needs; after what is under way already."""
        before, images = self._thread, [*images]

        def work() -> None:
            if before is not None:
                before.join()
            with suppress(Exception):
                chat.prepare(images, progress=self._report)

        self._thread = threading.Thread(target=work, name=BACKGROUND, daemon=True)
        self._thread.start()

    def wait(self, progress: Callable[[str, int, int], None]) -> None:
        """Until it is done; `progress` is called as `Chat.ask` does."""
        thread = self._thread
        while thread is not None and thread.is_alive():
            self._tell()
            if self._at is not None:
                progress(*self._at)
            thread.join(LOOK)
        self._tell()
        self._thread = self._at = None

    def say(self, message: str) -> None:
        """Say something; what the work has to say waits for `wait`."""
        if threading.current_thread() is threading.main_thread():
            say(message)
        else:
            self._said.append(message)

    def _report(self, what: str, done: int, total: int) -> None:
        self._at = (what, done, total)

    def _tell(self) -> None:
        while self._said:
            say(self._said.pop(0))
