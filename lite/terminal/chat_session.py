"""A chat in the terminal: conversation, waiting pictures, settings and the file that keeps it.

Contract: the same object serves one question, piped questions and a person. Whatever happens to an
answer, the pictures that went with its question are either in the conversation or still waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lite.cli import say
from lite.errors import BadInput
from lite.image.loading import Picture, load_image
from lite.terminal.attachments import attached, dropped
from lite.terminal.prefetch import Prefetch
from lite.terminal.printing import Printer
from lite.terminal.session_store import SessionStore

if TYPE_CHECKING:
    from lite.chat.chat import Chat
    from lite.chat.conversation import Exchange
    from lite.chat.images import ImageInput
    from lite.chat.model import Model


class ChatSession:
    """A conversation in the terminal.

    Attributes:
        model: the bundle.
        chat: the conversation.
        waiting: pictures that go with the next question.
        settings: keyword arguments of `Chat.ask`: `max_tokens` and the fields of `Sampling`.
        printer: shows the answers.
        store: keeps the conversation.
        prefetch: works on the next question while it is typed.
        interactive: a person reads what is said about pictures.
        draw: shows the person a picture that is added, uint8 `[H, W, 3]`.
    """

    def __init__(
        self,
        model: Model,
        chat: Chat,
        settings: dict[str, Any],
        printer: Printer | None = None,
        store: SessionStore | None = None,
        prefetch: Prefetch | None = None,
    ) -> None:
        self.model = model
        self.chat = chat
        self.settings = settings
        self.printer = printer or Printer()
        self.store = store or SessionStore()
        self.prefetch = prefetch or Prefetch()
        self.waiting: list[Picture] = []
        self.interactive = True
        self.draw: Callable[[np.ndarray], None] = lambda rgb: None

    def show(self, pictures: list[Picture], which: str = "the next") -> str:
        """Draw pictures and let them wait for a question; returns a line about each."""
        lines = []
        for picture in pictures:
            self.draw(picture.rgb)
            height, width, _ = picture.rgb.shape
            lines.append(f"{picture.name}, {width} x {height}, goes with {which} question.")
            lines += picture.notes
        if self.interactive:
            self.waiting += [replace(picture, notes=()) for picture in pictures]
            self.prefetch.start(self.chat, self.waiting)
        else:
            self.waiting += pictures  # with the notes, which the answer tells
        return "\n".join(lines)

    def ask_line(self, line: str) -> None:
        """Do what a line of a person or a script says: attach what it names, ask the rest.

        Raises:
            BadInput: it names a picture that is not there, and see `ask`.
        """
        pictures, question = named_pictures(line)
        asked = bool(question.strip()) or not pictures
        reply = self.show(pictures, "this" if asked else "the next") if pictures else ""
        if reply and self.interactive:
            say(reply)
        if asked:
            self.ask(question)

    def ask(self, question: str) -> None:
        """Ask a question, with the waiting pictures; the answer is printed as it comes.

        Raises:
            BadInput: see `Chat.ask`; or the conversation cannot be kept.
        """
        before = [*self.chat.exchanges]
        try:
            self._print(question, self.waiting)
        finally:
            if self._new(before):
                self.waiting = []
                self.store.keep(self.chat)

    def retry(self) -> None:
        """Ask the last question again, with the images it had; the new answer replaces the old one.

        Raises:
            BadInput: nothing was asked yet.
        """
        before = [*self.chat.exchanges]
        if not before:
            raise BadInput("Nothing was asked yet; write a question first.")
        old = self.chat.exchanges.pop()
        try:
            self._print(old.question, old.images)
        finally:
            if new := self._new(before):
                new.names = old.names
                self.store.keep(self.chat)
            else:
                self.chat.exchanges[:] = before

    def _print(self, question: str, images: Sequence[ImageInput]) -> None:
        progress = self.printer.progress
        self.prefetch.wait(progress)
        self.printer.print(self.chat.ask(question, images, progress=progress, **self.settings))

    def _new(self, before: list[Exchange]) -> Exchange | None:
        """The exchange that was not there before, if there is one."""
        last = self.chat.exchanges[-1] if self.chat.exchanges else None
        return None if any(last is exchange for exchange in before) else last


def named_pictures(line: str) -> tuple[list[Picture], str]:
    """The pictures that a line names, and the question that is left of it.

    Raises:
        BadInput: one of them cannot be used.
    """
    paths, question = dropped(line), ""
    if not paths:
        paths, question = attached(line)
    return [load_image(path) for path in paths], question
