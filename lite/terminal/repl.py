"""The loop of an interactive chat: read a line, do what it says, until the person leaves.

Contract: a line is a slash command, images that were dropped, or a question. A line that cannot be
served is one sentence, and the chat goes on; what is no answer goes to stderr.
"""

from __future__ import annotations

from lite.cli import say
from lite.errors import BadInput
from lite.image.loading import load_image
from lite.terminal import paste, slash
from lite.terminal.chat_session import Talk
from lite.terminal.editing import Editor
from lite.terminal.screen import printable
from lite.terminal.slash import Leave, count, short

WELCOME = "Ask about the image, or anything. /help shows the commands, Ctrl-D leaves."


def interact(talk: Talk, editor: Editor) -> None:
    """Chat until Ctrl-D or /quit.

    Raises:
        KeyboardInterrupt: Ctrl-C where no answer is under way and nothing is written.
    """
    say(WELCOME)
    if talk.chat.exchanges:
        last = printable(short(talk.chat.exchanges[-1].question))
        say(f"{count(len(talk.chat.exchanges), 'question')} so far; the last one: {last}")
    while True:
        waiting = count(len(talk.waiting), "image")
        try:
            line = editor.read(f"[{waiting}] > " if talk.waiting else "> ")
        except EOFError:
            return
        try:
            handle(talk, line)
        except Leave:
            return
        except KeyboardInterrupt:
            say("\n(stopped; Ctrl-C again leaves)")
        except BadInput as error:
            say(f"Error: {printable(str(error))}")


def handle(talk: Talk, line: str) -> None:
    """Do what one line says.

    Raises:
        BadInput: it cannot be done.
        Leave: the person leaves.
    """
    if not line.strip():
        return
    if slash.is_command(line):
        told = slash.run(talk, line)
    elif images := paste.dropped(line):
        told = talk.show([load_image(path) for path in images])
    elif line.startswith("/"):
        told = slash.run(talk, line)
    else:
        talk.ask(line)
        told = ""
    if told:
        say(printable(told))
