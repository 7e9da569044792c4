"""`lite-chat` in a pseudo-terminal, for tests that type and read the screen."""

import os
import re
import subprocess
import sys
from typing import Any

# The command in a pseudo-terminal of its own whose other end is our pipes.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
MAIN = "from lite.commands.chat import main; main()"
CTRL_C, CTRL_D = "\x03", "\x04"
# What the line editor switches on while it reads: bracketed paste (xterm, DECSET 2004).
READY, TAKEN = "\x1b[?2004h", "\x1b[?2004l"
PASTE, PASTED = "\x1b[200~", "\x1b[201~"
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# A terminal of this kind, whatever the tests run in; nobody answers questions for the cursor.
KIND = {"TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "COLORTERM": "", "NO_COLOR": ""}


class Terminal:
    """What is typed, and what the screen shows."""

    def __init__(self, *arguments: Any, code: str = MAIN, **environment: str) -> None:
        command = [sys.executable, "-c", code, *map(str, arguments)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=os.environ | KIND | environment,
        )
        self.screen, self._seen = "", 0

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

    def enter(self, line: str) -> str:
        """Type a line at the prompt; returns what is shown until the next prompt."""
        self.wait_for(READY)
        self.type(f"{line}\n")
        self.wait_for(TAKEN)
        start = self._seen
        self.wait_for(READY)
        self._seen -= len(READY)
        return self.screen[start : self._seen].replace("\r\n", "\n")

    def wait_for(self, text: str) -> None:
        """Read until `text` appears after what was waited for last."""
        while (at := self.screen.find(text, self._seen)) < 0:
            self.screen += self._read()
        self._seen = at + len(text)

    def read_more(self, count: int) -> None:
        start = len(self.screen)
        while len(self.screen) < start + count:
            self.screen += self._read()

    def end(self) -> int:
        """Read the rest; returns the exit code."""
        assert self._process.stdout is not None
        self.screen += self._process.stdout.read().decode(errors="replace")
        return self._process.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _read(self) -> str:
        assert self._process.stdout is not None
        data = self._process.stdout.read(4096)
        assert data, f"the program left: {self.screen}"
        return data.decode(errors="replace")


def plain(screen: str) -> str:
    """What a person sees of it."""
    return ESCAPES.sub("", screen)
