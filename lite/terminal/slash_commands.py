"""The slash commands: a table of name, arguments, help and function.

Contract: a function takes the chat session and the rest of its line, and returns the reply to
print; it raises `BadInput` with one sentence and then changes nothing. Only /retry prints itself.
"""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from lite.chat.sampling import Sampling
from lite.chat.session_file import MAGIC
from lite.errors import BadInput
from lite.image.loading import load_image
from lite.terminal import attachments
from lite.terminal.chat_session import ChatSession
from lite.terminal.printing import statistics
from lite.terminal.session_store import SessionStore


class Quit(Exception):
    """The chat ends."""


@dataclass(frozen=True)
class Command:
    """One slash command.

    Attributes:
        run: what it does, see the module's contract.
        usage: its arguments, as the help shows them.
        help: one line.
        completes: what its arguments are.
    """

    run: Callable[[ChatSession, str], str]
    usage: str
    help: str
    completes: Literal["", "images", "files", "settings"] = ""


def is_command(line: str) -> bool:
    """Whether a line is one of the commands, or a word that other programs end at."""
    return _split(line)[0] in COMMANDS


def run(session: ChatSession, line: str) -> str:
    """Run a line that begins with a slash; returns the reply to print.

    Raises:
        BadInput: it is no command, or its arguments cannot be used.
        Quit: the command was /quit.
    """
    name, rest = _split(line)
    if name not in COMMANDS:
        what = "command" if "/" not in name[1:] else "command or picture"
        raise BadInput(
            f"There is no {what} {name}{_nearest(name, COMMANDS)}; /help shows all commands, and a "
            f"space before the slash makes the line a question."
        )
    return COMMANDS[name].run(session, rest)


def _image(session: ChatSession, rest: str) -> str:
    if not rest:
        raise BadInput("/image needs the path of an image; Tab completes it.")
    return session.show([load_image(path) for path in attachments.paths(rest)])


def _paste(session: ChatSession, rest: str) -> str:
    return session.show(attachments.clipboard())


def _images(session: ChatSession, rest: str) -> str:
    shown = [(f"question {at}", e.names) for at, e in enumerate(session.chat.exchanges, 1)]
    shown.append(("next question", [picture.name for picture in session.waiting]))
    lines = [f"{when}: {', '.join(names)}" for when, names in shown if names]
    return "\n".join(lines) or "There are no images yet; /image PATH shows one."


def _clear(session: ChatSession, rest: str) -> str:
    session.chat.exchanges.clear()
    session.waiting = []
    session.store.keep(session.chat)
    return "The conversation is empty."


def _undo(session: ChatSession, rest: str) -> str:
    if not session.chat.exchanges:
        raise BadInput("There is nothing to undo; no question was asked yet.")
    undone = session.chat.exchanges.pop()
    session.store.keep(session.chat)
    images = f" with {count(len(undone.images), 'image')}" if undone.images else ""
    return f"Forgot the last question{images}: {short(undone.question)}"


def _retry(session: ChatSession, rest: str) -> str:
    session.retry()
    return ""


def _system(session: ChatSession, rest: str) -> str:
    if rest:
        session.chat.system = rest
        if session.chat.exchanges:
            session.store.keep(session.chat)
    return session.chat.system


def _save(session: ChatSession, rest: str) -> str:
    rest, kv = re.subn(r"(^|\s)--kv(?=\s|$)", "", rest)
    if not rest:
        raise BadInput("/save needs a file name; --kv after it keeps the KV cache too.")
    file = Path(attachments.path(rest))
    if file.exists() and not _is_session(file):
        raise BadInput(f"{file} exists and is no session; give another name.")
    session.prefetch.wait(session.printer.progress)
    session.chat.save(file, kv=True) if kv else session.chat.save(file)
    return f"Saved {count(len(session.chat.exchanges), 'question')} to {file}."


def _load(session: ChatSession, rest: str) -> str:
    if not rest:
        raise BadInput("/load needs the file of a session; Tab completes it.")
    file = Path(attachments.path(rest))
    session.prefetch.wait(session.printer.progress)
    session.chat = session.model.open(file)
    session.waiting = []
    if session.store.named:  # a session that was named is left as it is for the other one
        session.store = SessionStore(file, named=True)
    else:
        session.store.keep(session.chat)
    return f"Loaded {count(len(session.chat.exchanges), 'question')} from {file}."


def _stats(session: ChatSession, rest: str) -> str:
    exchanges, manifest = session.chat.exchanges, session.model.bundle.manifest
    images = sum(len(exchange.images) for exchange in exchanges)
    used = session.model.context - session.chat.room()
    timings = session.printer.timings
    return "\n".join(
        (
            f"model {session.model.bundle.folder}, {manifest.precision['decoder']}",
            f"conversation {count(len(exchanges), 'question')}, {count(images, 'image')}, "
            f"{used} of {session.model.context} tokens",
            f"last answer {statistics(timings) if timings else 'none yet'}",
        )
    )


def _set(session: ChatSession, rest: str) -> str:
    name, _, value = rest.partition(" ")
    if not name:
        return "\n".join(f"{key} {_shown(session.settings[key])}" for key in SETTINGS)
    if name not in SETTINGS:
        raise BadInput(
            f"There is no setting {name}{_nearest(name, SETTINGS)}; /set alone shows all."
        )
    if value.strip():
        changed = {**session.settings, name: _number(name, value.strip())}
        Sampling(**{key: changed[key] for key in SETTINGS[1:]})
        if changed["max_tokens"] < 1:
            raise BadInput(f"max_tokens is {changed['max_tokens']}; give a number from 1.")
        session.settings = changed
    return f"{name} {_shown(session.settings[name])}"


def _help(session: ChatSession, rest: str) -> str:
    uses = {f"{name} {command.usage}".rstrip(): command.help for name, command in COMMANDS.items()}
    width = max(map(len, uses))
    lines = [f"{use:<{width}}  {text}" for use, text in uses.items()]
    return "\n".join([*lines, KEYS])


def _quit(session: ChatSession, rest: str) -> str:
    raise Quit


COMMANDS = {
    "/image": Command(_image, "PATH...", "show images with the next question", "images"),
    "/paste": Command(_paste, "", "show the image in the clipboard"),
    "/images": Command(_images, "", "list the images of this conversation"),
    "/retry": Command(_retry, "", "ask the last question again"),
    "/undo": Command(_undo, "", "forget the last question and its answer"),
    "/clear": Command(_clear, "", "forget the whole conversation"),
    "/system": Command(_system, "[TEXT]", "show or replace the opening line of the prompt"),
    "/set": Command(_set, "[NAME [VALUE]]", "show or change how answers are made", "settings"),
    "/stats": Command(_stats, "", "show what the conversation and the last answer cost"),
    "/save": Command(
        _save, "FILE [--kv]", "save the conversation; --kv: with its KV cache", "files"
    ),
    "/load": Command(_load, "FILE", "go on with a saved conversation", "files"),
    "/help": Command(_help, "", "show this"),
    "/quit": Command(_quit, "", "leave, as Ctrl-D does"),
}
# What people type to leave or to get help in other programs.
ALIASES = dict.fromkeys(("exit", "quit", "bye", "/exit", "/bye", "/q"), "/quit") | {"/?": "/help"}
KEYS = (
    "Alt-Enter or a backslash at the end begins a new line. Ctrl-C stops an answer.\n"
    "A file dropped into the terminal is shown with the next question."
)
SETTINGS = ("max_tokens", *(field.name for field in fields(Sampling)))


def count(number: int, noun: str) -> str:
    """`1 question`, `2 questions`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def short(text: str) -> str:
    """The beginning of a text, in one line."""
    return textwrap.shorten(text, 60, placeholder="...")


def _split(line: str) -> tuple[str, str]:
    name, *rest = line.split(maxsplit=1) or [""]
    if not rest and not line[:1].isspace():
        name = ALIASES.get(name.lower(), name)
    return name, "".join(rest).strip()


def _nearest(name: str, names: Iterable[str]) -> str:
    """The name that was meant, as the end of "There is no ..."; empty where none is near."""
    near = difflib.get_close_matches(name, names, n=1)
    return f", the nearest is {near[0]}" if near else ""


def _number(name: str, value: str) -> float | int | None:
    if name == "seed" and value.lower() == "none":
        return None
    whole = name in ("max_tokens", "top_k", "seed")
    try:
        return int(value) if whole else float(value)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise BadInput(f"{name} must be {kind}, not {short(value)}.") from None


def _shown(value: float | int | None) -> str:
    return "none" if value is None else str(value)


def _is_session(file: Path) -> bool:
    try:
        with file.open("rb") as start:
            return start.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
