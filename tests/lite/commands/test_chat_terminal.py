"""`lite-chat` in a terminal: Ctrl-C, Ctrl-D, and prompts."""

import sys
from pathlib import Path
from typing import Any

import click
import pytest

from lite.cli import run
from tests.lite.terminal.terminals import CTRL_C, CTRL_D, READY, TAKEN

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")

LONG = ("--max-tokens", "1000000")


def test_questions_are_answered_until_ctrl_d(terminal: Any, bundles: Any) -> None:
    here = terminal("-m", bundles(), "--max-tokens", "5", "--stats")
    here.wait_for("Ctrl-D leaves.")
    here.wait_for(READY)
    here.type("what is this?\n")
    here.wait_for("tokens/s")
    here.wait_for(READY)
    here.type("\n")  # nothing is asked
    here.wait_for(READY)
    here.type("and this?\n")
    here.wait_for("tokens/s")
    here.wait_for(READY)
    here.type(CTRL_D)
    assert here.end() == 0
    assert "Error" not in here.screen


def test_ctrl_c_stops_the_answer_and_a_second_one_leaves(terminal: Any, long_bundle: Path) -> None:
    here = terminal("-m", long_bundle, *LONG)
    here.wait_for(READY)
    here.type("go on\n")
    here.wait_for(TAKEN)
    here.read_more(60)
    here.type(CTRL_C)
    here.wait_for("(stopped; Ctrl-C again leaves)")
    here.wait_for(READY)
    here.type(CTRL_C)
    assert here.end() == 130
    assert here.screen.rstrip().endswith("Stopped.")
    assert "Traceback" not in here.screen


def test_ctrl_c_during_a_single_question_leaves(terminal: Any, long_bundle: Path) -> None:
    here = terminal("-m", long_bundle, *LONG, "-p", "go on")
    here.read_more(60)
    here.type(CTRL_C)
    assert here.end() == 130, here.screen
    assert "Traceback" not in here.screen


def test_ctrl_c_is_no_fault_of_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    """What a module in C makes of one that comes while it is imported."""

    @click.command
    def importing() -> None:
        raise ImportError("initialization failed") from KeyboardInterrupt()

    with pytest.raises(SystemExit) as left:
        run(importing, [])
    assert left.value.code == 130
    assert capsys.readouterr().err.strip() == "Stopped."


def test_a_question_that_is_refused_does_not_end_the_chat(terminal: Any, bundles: Any) -> None:
    here = terminal("-m", bundles(), "--max-tokens", "5", "--stats")
    here.wait_for(READY)
    here.type("7" * 3000 + "\n")
    here.wait_for("Error: The prompt has")
    here.wait_for(READY)
    here.type("short\n")
    here.wait_for("tokens/s")
    here.wait_for(READY)
    here.type(CTRL_D)
    assert here.end() == 0


def test_an_image_that_cannot_be_shown_is_refused_at_once(terminal: Any, bundles: Any) -> None:
    here = terminal("missing.png", "-m", bundles())
    assert here.end() == 2
    assert "Error: There is no file missing.png" in here.screen
