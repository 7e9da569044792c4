"""The file that keeps a conversation across restarts and crashes.

Contract: the file mirrors the conversation after every change, written whole or not at all and
readable by its owner only; nothing is written before the first change. A session that was named
must be kept: failing is an error. The last conversation is kept where that is possible; where it is
not, one warning says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from lite.cli import say
from lite.errors import BadInput
from lite.userdirs import data_dir

if TYPE_CHECKING:
    from lite.chat.chat import Chat
    from lite.chat.model import Model


class SessionStore:
    """Keeps a conversation in a file.

    Attributes:
        path: the file; None keeps nothing.
        named: whether the person named it.
    """

    def __init__(self, path: Path | None = None, named: bool = False, warn: bool = True) -> None:
        """`warn` says so where a file that nobody named cannot be written."""
        self.path = path
        self.named = named
        # Where there was no file, one that is there at the first writing is another chat's.
        self._new = named and not self.exists()
        self._warned = not warn

    def exists(self) -> bool:
        """Whether there is a file to go on with."""
        return self.path is not None and self.path.exists()

    def keep(self, chat: Chat) -> None:
        """Write the conversation.

        Raises:
            BadInput: a named file cannot be written.
        """
        if self.path is None:
            return
        try:
            if not self.named:
                _make_folder(self.path.parent)
            if self._new and self.exists():
                raise BadInput(
                    f"The session {self.path} was made by another chat meanwhile; /save this "
                    f"conversation under another name."
                )
            chat.save(self.path)
            self._new = False
        except BadInput as error:
            if self.named:
                raise
            self._warn(str(error))

    def _warn(self, message: str) -> None:
        if not self._warned:
            say(f"This conversation is not kept for --continue: {message}")
            self._warned = True


def named(path: str) -> SessionStore:
    """The store of `--session FILE`.

    Raises:
        BadInput: the folder of the file does not exist.
    """
    file = Path(path)
    if not file.absolute().parent.is_dir():
        raise BadInput(f"There is no folder for the session {path}; make it, or name another file.")
    return SessionStore(file, named=True)


def last(model: Model, interactive: bool = True) -> SessionStore:
    """The store of the last conversation with a bundle.

    Single questions have a file of their own, so that none ends a conversation at the terminal.
    """
    # The bundle's content names the file: a moved bundle finds it, a changed one has another.
    name = f"{'last' if interactive else 'single'}-{model.bundle.digest[:16]}.session"
    return SessionStore(data_dir("sessions") / name, warn=interactive)


def continued(model: Model) -> SessionStore:
    """The store of the last conversation, at the terminal or with one question, which must exist.

    Raises:
        BadInput: there was none with this bundle.
    """
    stores = [store for store in (last(model), last(model, False)) if store.exists()]
    if not stores:
        raise BadInput(
            "There is no conversation with this model to continue; leave out --continue to begin."
        )
    return max(stores, key=lambda store: store.path.stat().st_mtime_ns if store.path else 0)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror
        raise BadInput(
            f"The folder {folder} cannot be made ({why}); set MMGPT_LITE_DATA."
        ) from None
