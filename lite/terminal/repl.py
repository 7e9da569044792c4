"""The loop of an interactive chat: read a line, do what it says, until the person leaves.

Contract: a line is a slash command, images that were dropped, or a question. A line that cannot be
served is one sentence, and the chat goes on; all but answers goes to stderr.
"""

from __future__ import annotations

from lite.cli import say
from lite.errors import BadInput
from lite.terminal import slash_commands
from lite.terminal.attachments import attached, dropped
from lite.terminal.chat_session import ChatSession
from lite.terminal.editor import Editor
from lite.terminal.slash_commands import Quit, count, short

WELCOME = "Ask about the image, or anything. /help shows the commands, Ctrl-D leaves."


def interact(session: ChatSession, editor: Editor, quiet: bool = False) -> None:
    """Chat until Ctrl-D or /quit; `quiet` leaves out the welcome.

    Raises:
        KeyboardInterrupt: Ctrl-C where no answer is under way and nothing is written.
    """
    if not quiet:
        say(WELCOME)
    if session.chat.exchanges and not quiet:
        last = short(session.chat.exchanges[-1].question)
        say(f"{count(len(session.chat.exchanges), 'question')} so far; the last one: {last}")
    while True:
        waiting = count(len(session.waiting), "image")
        try:
            line = editor.read(f"[{waiting}] > " if session.waiting else "> ")
        except EOFError:
            return
        try:
            handle(session, line)
        except Quit:
            return
        except KeyboardInterrupt:
            say("\n(stopped; Ctrl-C again leaves)")
        except BadInput as error:
            say(f"Error: {error}")


def handle(session: ChatSession, line: str) -> None:
    """Do what one line says.

    Raises:
        BadInput: it cannot be done.
        Quit: the person leaves.
    """
    if not line.strip():
        return
    if slash_commands.is_command(line):
        reply = slash_commands.run(session, line)
        if reply:
            say(reply)
    elif line.startswith("/") and not _begins_with_path(line):
        slash_commands.run(session, line)  # which refuses it
    else:
        session.ask_line(line)


def _begins_with_path(line: str) -> bool:
    """Whether a line that begins with a slash begins with a picture and no wrong command.

    Raises:
        BadInput: it begins like the path of one that is not there.
    """
    return bool(dropped(line)) or ("/" in line.split()[0][1:] and bool(attached(line)[0]))
