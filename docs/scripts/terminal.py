"""Records a real `lite-chat` in a terminal as a picture: `make picture`.

Contract: runs the command in a pseudo-terminal with the demo model, types the questions, and draws
what then stands on the screen, colours included. Nothing of the answers is written by hand. Needs
a POSIX system and the extra `docs`.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

ROOT = Path(__file__).parents[2]
PICTURE = "examples/tiger.png"
QUESTIONS = (
    "What does the animal in the picture say?",
    "What colour is the tiger?",
    "Where in the picture is the tiger?",
)
COLUMNS, ROWS = 78, 40
# Seconds without a byte at the prompt, after which the program waits for its user.
QUIET = 1.0
# pyte's names of colours that rich calls otherwise.
NAMES = {"default": None, "brown": "yellow", "brightblack": "bright_black"}


def main() -> None:
    """Record the conversation into the file that the command line names."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.ByteStream(screen)
    with TemporaryDirectory() as home:
        environment = os.environ | {
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "MMGPT_LITE_CACHE": home,
            "MMGPT_LITE_DATA": home,
            "PYTHONPATH": str(ROOT),
        }
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        # Questions of the program to its terminal (where is the cursor?) are answered by pyte.
        screen.write_process_input = lambda data: os.write(leader, data.encode())
        command = [sys.executable, "-m", "lite.commands.chat", PICTURE]
        with subprocess.Popen(
            command, cwd=ROOT, stdin=follower, stdout=follower, stderr=follower, env=environment
        ) as process:
            os.close(follower)
            settle(leader, screen, stream)
            for question in QUESTIONS:
                os.write(leader, question.encode() + b"\r")
                settle(leader, screen, stream)
            draw(screen, Path(sys.argv[1]))
            os.write(leader, b"\x04")
            settle(leader, screen, stream)
            process.wait(30)


def settle(leader: int, screen: pyte.Screen, stream: pyte.ByteStream) -> None:
    """Show the screen what the program writes, until it waits at its prompt or has left."""
    last = time.monotonic()
    while time.monotonic() - last < QUIET or not at_prompt(screen):
        if not select.select([leader], [], [], 0.1)[0]:
            continue
        try:
            received = os.read(leader, 65536)
        except OSError:  # the program has left
            return
        stream.feed(received)
        last = time.monotonic()


def at_prompt(screen: pyte.Screen) -> bool:
    """Whether the line of the cursor is an empty prompt."""
    return screen.display[screen.cursor.y].rstrip().endswith(">")


def draw(screen: pyte.Screen, file: Path) -> None:
    """Write the screen as SVG, without its empty last lines and the waiting prompt."""
    rows = [row(screen, at) for at in range(ROWS)]
    while rows and rows[-1].plain.strip() in ("", ">"):
        rows.pop()
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115, PTH123
    for line in rows:
        console.print(line, no_wrap=True, crop=True)
    svg = console.export_svg(title=f"lite-chat {PICTURE}", unique_id="recorded")
    # rich names web fonts; whoever looks at the picture shall not fetch them.
    start, end = svg.index("@font-face"), svg.rindex("@font-face")
    end = svg.index("}", end) + 1
    file.write_text(svg[:start].rstrip() + svg[end:] + "\n", encoding="utf-8")


def row(screen: pyte.Screen, at: int) -> Text:
    """One line of the screen with its colours."""
    text = Text()
    cells = [screen.buffer[at][column] for column in range(COLUMNS)]
    for style, same in groupby(cells, style_of):
        text.append("".join(cell.data for cell in same), style)
    text.rstrip()
    return text


def style_of(cell: pyte.screens.Char) -> Style:
    """rich's style of one cell."""
    return Style(
        color=colour(cell.fg), bgcolor=colour(cell.bg), bold=cell.bold, italic=cell.italics
    )


def colour(name: str) -> str | None:
    """rich's name of a colour of pyte's."""
    if name in NAMES:
        return NAMES[name]
    if len(name) == 6 and all(digit in "0123456789abcdef" for digit in name.lower()):
        return f"#{name}"
    return name.replace("bright", "bright_")


if __name__ == "__main__":
    main()
