"""`lite-chat` in a terminal: Ctrl-C, Ctrl-D, and prompts."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

# The command in a pseudo-terminal of its own whose other end is our pipes.
TERMINAL = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
MAIN = "from lite.commands.chat import main; main()"
CTRL_C, CTRL_D = "\x03", "\x04"
LONG = ("--max-tokens", "1000000")


class Terminal:
    """What is typed, and what the screen shows."""

    def __init__(self, *arguments: Any) -> None:
        command = [sys.executable, "-c", MAIN, *map(str, arguments)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", TERMINAL, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.screen, self._seen = "", 0

    def type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())

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


@pytest.fixture
def terminal() -> Iterator[Any]:
    opened: list[Terminal] = []

    def open_(*arguments: Any) -> Terminal:
        opened.append(Terminal(*arguments))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()


def test_questions_are_answered_until_ctrl_d(terminal: Any, bundles: Any) -> None:
    here = terminal("-m", bundles(), "--max-tokens", "5", "--stats")
    here.wait_for("Ctrl-D leaves.")
    here.wait_for("> ")
    here.type("what is this?\n")
    here.wait_for("tokens/s")
    here.wait_for("> ")
    here.type("\n")  # nothing is asked
    here.wait_for("> ")
    here.type("and this?\n")
    here.wait_for("tokens/s")
    here.wait_for("> ")
    here.type(CTRL_D)
    assert here.end() == 0
    assert "Error" not in here.screen


def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(terminal: Any, long_bundle: Path) -> None:
    here = terminal("-m", long_bundle, *LONG)
    here.wait_for("> ")
    here.type("go on\n")
    here.read_more(60)
    here.type(CTRL_C)
    here.wait_for("(stopped; Ctrl-C again leaves)")
    here.wait_for("> ")
    here.type(CTRL_C)
    assert here.end() == 130
    assert here.screen.rstrip().endswith("Stopped.")
    assert "Traceback" not in here.screen


def test_ctrl_c_during_a_single_question_leaves(terminal: Any, long_bundle: Path) -> None:
    here = terminal("-m", long_bundle, *LONG, "-p", "go on")
    here.read_more(60)
    here.type(CTRL_C)
    assert here.end() == 130
    assert "Traceback" not in here.screen


def test_a_question_that_is_refused_does_not_end_the_chat(terminal: Any, bundles: Any) -> None:
    here = terminal("-m", bundles(), "--max-tokens", "5", "--stats")
    here.wait_for("> ")
    here.type("7" * 3000 + "\n")
    here.wait_for("Error: The prompt has")
    here.wait_for("> ")
    here.type("short\n")
    here.wait_for("tokens/s")
    here.type(CTRL_D)
    assert here.end() == 0


def test_an_image_that_cannot_be_shown_is_refused_at_once(terminal: Any, bundles: Any) -> None:
    here = terminal("missing.png", "-m", bundles())
    assert here.end() == 2
    assert "Error: There is no file missing.png" in here.screen
