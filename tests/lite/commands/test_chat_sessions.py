"""Whole sessions of `lite-chat` at a terminal, and its conversations from one to the next."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lite
from tests.lite.conftest import CAT, DOG
from tests.lite.terminal.terminals import CTRL_C, CTRL_D, MAIN, READY, TAKEN, plain

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal"),
    pytest.mark.timeout(100),
]
SHORT = ("--max-tokens", "12")
QUESTIONS = ("what is this?", "and what\tcolour? größe", "why?")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(DOG).save(tmp_path / "my dog.png")
    return tmp_path / "my dog.png"


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of this test's own."""
    monkeypatch.setenv("MMGPT_LITE_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: Any, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
    """The command without a terminal: stdout and stderr."""
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


def leave(here: Any) -> None:
    here.wait_for(READY)
    here.type(CTRL_D)
    assert here.end() == 0


def printable(answer: str) -> str:
    """What a terminal shows of an answer: no control character but tab and newline."""
    return "".join(c for c in answer if c in "\t\n" or not (c < " " or "\x7f" <= c < "\xa0"))


def test_terminal_pipe_and_python_give_the_same_answers(
    terminal: Any, bundles: Any, photo: Path, data: Path
) -> None:
    bundle = bundles("lora", "int8")
    chat = lite.load(bundle).chat()
    expected = []
    for question in QUESTIONS:
        image = str(photo) if not expected else None
        expected.append("".join(p.text for p in chat.ask(question, image, max_tokens=12)))
    assert all(expected)
    piped, _ = run(photo, "-m", bundle, *SHORT, stdin="\n".join(QUESTIONS).encode())
    assert piped == "".join(f"{answer}\n" for answer in expected)
    here = terminal(photo, "-m", bundle, *SHORT)
    shown = [plain(here.enter(question.replace("\t", "    "))) for question in QUESTIONS[:1]]
    assert shown[0].endswith(f"{printable(expected[0])}\n")
    for question, answer in zip(QUESTIONS[1:], expected[1:], strict=True):
        # A tab in a line that is typed completes; one that is pasted is a tab.
        assert plain(here.enter(f"\x1b[200~{question}\x1b[201~")) == f"{printable(answer)}\n"
    leave(here)
    kept = lite.load(bundle).open(next(data.glob("sessions/last-*.session")))
    assert [e.answer for e in kept.exchanges] == expected


def test_the_last_conversation_goes_on(
    terminal: Any, bundles: Any, photo: Path, data: Path
) -> None:
    arguments = ("-m", bundles(), *SHORT)
    here = terminal(photo, *arguments)
    first = plain(here.enter("what is this?"))
    leave(here)
    photo.unlink()
    (file,) = data.glob("sessions/*")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = terminal("--continue", *arguments)
    again.wait_for("1 question so far; the last one: what is this?")
    second = plain(again.enter("and this?"))
    leave(again)
    Image.fromarray(DOG).save(photo)
    both, _ = run(photo, *arguments, stdin=b"what is this?\nand this?\n")
    assert printable(both) == first.rpartition("\r")[2] + second
    out, _ = run("--continue", *arguments, "-p", "why?")
    assert out == run(photo, *arguments, stdin=b"what is this?\nand this?\nwhy?\n")[0][len(both) :]
    assert len(lite.load(bundles()).open(file).exchanges) == 3


def test_kill_9_loses_no_answer_that_was_complete(
    terminal: Any, long_bundle: Path, tmp_path: Path, data: Path
) -> None:
    pid = tmp_path / "pid"
    code = f"import os; open({str(pid)!r}, 'w').write(str(os.getpid())); {MAIN}"
    here = terminal("-m", long_bundle, "--max-tokens", "5", code=code)
    here.enter("what is this?")
    here.enter("/set max_tokens 1000000")
    here.wait_for(READY)
    here.type("go on\n")
    here.wait_for(TAKEN)
    here.read_more(60)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    assert here.end() == -signal.SIGKILL % 256
    again = terminal("-m", long_bundle, "--continue")
    again.wait_for("1 question so far; the last one: what is this?")
    leave(again)


def test_a_stopped_answer_stays_in_the_conversation(
    terminal: Any, long_bundle: Path, data: Path
) -> None:
    here = terminal("-m", long_bundle, "--max-tokens", "1000000")
    here.wait_for(READY)
    here.type("go on\n")
    here.wait_for(TAKEN)
    here.read_more(60)
    here.type(CTRL_C)
    here.wait_for("\r\n(stopped")
    shown = plain(here.screen.rpartition(TAKEN)[2]).replace("\r\n", "\n").rpartition("\n(st")[0]
    leave(here)
    (file,) = data.glob("sessions/*")
    (exchange,) = lite.load(long_bundle).open(file).exchanges
    answer = printable(exchange.answer)
    # The terminal itself writes ^C where it was typed; a piece may be complete and not shown yet.
    without = [shown[:at] + shown[at + 2 :] for at in range(len(shown)) if shown[at:][:2] == "^C"]
    assert any(answer.startswith(text) and len(answer) < len(text) + 20 for text in without)


def test_a_named_session_is_made_and_goes_on(
    terminal: Any, bundles: Any, tmp_path: Path, data: Path
) -> None:
    file = tmp_path / "park.session"
    arguments = ("-m", bundles(), *SHORT, "--session", file)
    one, _ = run(*arguments, "-p", "what is this?")
    here = terminal(*arguments)
    two = plain(here.enter("and this?"))
    leave(here)
    expected, _ = run("-m", bundles(), *SHORT, stdin=b"what is this?\nand this?\n")
    assert printable(one + two) == printable(expected)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not list(data.glob("sessions/*"))


def test_sessions_that_cannot_go_on_are_one_sentence_and_exit_code_2(
    bundles: Any, small_bundle: Path, tmp_path: Path, photo: Path, data: Path
) -> None:
    ask = ("-p", "what is this?", *SHORT)

    def refused(*arguments: Any) -> str:
        out, err = run(*arguments, *ask, code=2)
        assert out == ""
        assert re.fullmatch(r"Error: [^\n]*\.\n", err)
        return err

    assert "There is no conversation with this model" in refused("-m", bundles(), "--continue")
    file = tmp_path / "other.session"
    run("-m", small_bundle, "--session", file, *ask)
    assert "belongs to another model" in refused("-m", bundles(), "--session", file)
    last = data / "sessions" / f"last-{lite.load(bundles()).bundle.digest[:16]}.session"
    last.parent.mkdir(parents=True)
    last.write_bytes(file.read_bytes())
    assert "belongs to another model" in refused("-m", bundles(), "--continue")
    before = photo.read_bytes()
    assert "my dog.png" in refused("-m", bundles(), "--session", photo)
    assert photo.read_bytes() == before
    nowhere = tmp_path / "nowhere" / "a.session"
    assert "There is no folder" in refused("-m", bundles(), "--session", nowhere)
    both = refused("-m", bundles(), "--session", file, "--continue")
    assert "give one of them" in both


def test_one_question_leaves_the_last_conversation_alone(
    terminal: Any, bundles: Any, data: Path
) -> None:
    here = terminal("-m", bundles(), *SHORT)
    here.enter("who are you?")
    leave(here)
    (file,) = data.glob("sessions/*")
    before = file.read_bytes()
    run("-m", bundles(), *SHORT, "-p", "what is this?")
    run("-m", bundles(), *SHORT, stdin=b"what is this?\n")
    assert file.read_bytes() == before
    assert len([*data.glob("sessions/*")]) == 2


def test_one_question_can_be_gone_on_with(bundles: Any, photo: Path, data: Path) -> None:
    ask = ("-m", bundles(), *SHORT)
    run(photo, *ask, "-p", "what is this?", "--no-history")
    assert not data.exists()
    run(photo, *ask, "-p", "what is this?")
    out, _ = run("--continue", *ask, "-p", "and this?")
    assert run(photo, *ask, stdin=b"what is this?\nand this?\n")[0].endswith(out)


def test_no_history_leaves_nothing_behind(terminal: Any, bundles: Any, data: Path) -> None:
    here = terminal("-m", bundles(), *SHORT, "--no-history")
    here.enter("what is this?")
    leave(here)
    assert not data.exists()


def test_the_history_holds_what_was_typed(terminal: Any, bundles: Any, data: Path) -> None:
    here = terminal("-m", bundles(), *SHORT)
    here.enter("/set top_k 3")
    leave(here)
    here = terminal("-m", bundles(), *SHORT)
    assert plain(here.enter("\x1b[A")) == "top_k 3\n"
    leave(here)
    assert stat.S_IMODE((data / "history" / "lines").stat().st_mode) == 0o600


def test_the_image_is_drawn_where_the_terminal_can(
    terminal: Any, bundles: Any, photo: Path, data: Path
) -> None:
    said = f"{photo}, 60 x 70, goes with the next question."
    for drawn, arguments, environment in (
        (True, (), {}),
        (True, (), {"COLORTERM": "truecolor"}),
        (False, ("--no-pictures",), {}),
        (False, (), {"NO_COLOR": "1"}),
        (False, (), {"TERM": "vt100"}),
    ):
        here = terminal(photo, "-m", bundles(), *SHORT, *arguments, **environment)
        leave(here)
        assert said in here.screen
        assert ("▀" in here.screen) == drawn
    here = terminal("-m", bundles(), *SHORT)
    answer = here.enter(f"'{photo}' ")
    assert "▀" in answer
    assert said in plain(answer)
    here.wait_for("[1 image] >")
    here.type(CTRL_D)
    assert here.end() == 0


def test_a_dumb_terminal_gets_no_escape_codes(
    terminal: Any, bundles: Any, photo: Path, data: Path
) -> None:
    here = terminal(photo, "-m", bundles(), *SHORT, TERM="dumb")
    here.wait_for("> ")
    here.type("what is this?\n")
    here.wait_for("> ")
    here.type(CTRL_D)
    assert here.end() == 0
    assert "\x1b" not in here.screen
    expected, _ = run(photo, "-m", bundles(), *SHORT, "-p", "what is this?")
    assert printable(expected) in here.screen.replace("\r\n", "\n")


def test_an_answer_is_styled_in_a_terminal_only(terminal: Any, bundles: Any, data: Path) -> None:
    # Random weights write few asterisks by themselves; hot sampling writes some.
    hot = ("-m", bundles(), "-p", "x", "--max-tokens", "300", "--temperature", "9", "--seed", "3")
    expected, _ = run(*hot)
    here = terminal(*hot)
    assert here.end() == 0
    assert "\x1b[" in here.screen
    assert plain(here.screen).replace("\r\n", "\n") == printable(expected)
    bare = terminal(*hot, NO_COLOR="1")
    assert bare.end() == 0
    assert "\x1b" not in bare.screen


def test_an_answer_may_go_to_a_file_while_a_person_types(
    bundles: Any, tmp_path: Path, terminal: Any, data: Path
) -> None:
    out = tmp_path / "answers.txt"
    code = f"import os; os.dup2(os.open({str(out)!r}, os.O_WRONLY | os.O_CREAT), 1); {MAIN}"
    here = terminal("-m", bundles(), *SHORT, code=code)
    here.enter("what is this?")
    leave(here)
    assert out.read_text() == run("-m", bundles(), *SHORT, "-p", "what is this?")[0]


def test_the_image_may_come_from_standard_input(bundles: Any, photo: Path) -> None:
    ask = ("-m", bundles(), "-p", "what is this?", *SHORT, "--json")
    piped = json.loads(run("-", *ask, stdin=photo.read_bytes())[0])
    assert piped["answer"] == json.loads(run(photo, *ask)[0])["answer"]
    cat = photo.with_name("cat.png")
    Image.fromarray(CAT).save(cat)
    two = json.loads(run(cat, "-", *ask, stdin=photo.read_bytes())[0])
    assert two["answer"] == json.loads(run(cat, photo, *ask)[0])["answer"] != piped["answer"]


def test_standard_input_that_is_no_image_is_one_sentence(bundles: Any) -> None:
    def refused(*arguments: Any, stdin: bytes = b"") -> str:
        out, err = run(*arguments, "-m", bundles(), *SHORT, stdin=stdin, code=2)
        assert out == ""
        assert re.fullmatch(r"Error: [^\n]*\.\n", err)
        return err

    assert "questions cannot come from there; give -p" in refused("-", stdin=b"what is this?\n")
    assert "is empty" in refused("-", "-p", "x")
    assert "not an image" in refused("-", "-p", "x", stdin=b"no image")
    assert "give - once" in refused("-", "-", "-p", "x")


def test_standard_input_that_is_a_terminal_holds_no_image(terminal: Any, bundles: Any) -> None:
    here = terminal("-", "-m", bundles(), "-p", "x")
    assert here.end() == 2
    assert "- takes an image from standard input; pipe one in" in here.screen


def test_the_line_editor_is_loaded_for_a_person_only(bundles: Any, photo: Path) -> None:
    code = (
        "import sys\n"
        "from lite.commands.chat import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not {'prompt_toolkit', 'rich'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", code, str(photo), "-m", str(bundles()), *SHORT]
    for arguments in ([*command, "-p", "x"], command):
        done = subprocess.run(arguments, input=b"x\n", capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr
