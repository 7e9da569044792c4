"""`lite-chat` as a person or a script meets it: streams, exit codes, and no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lite
from tests.lite.conftest import CAT, DOG
from tests.lite.damaged_bundles import claim, recorded

MAIN = "from lite.commands.chat import main; main()"
ASK = ("-p", "what is this?", "--max-tokens", "6")


def chat(
    *arguments: Any, stdin: str | bytes = "", code: int = 0, **environment: str
) -> tuple[str, str]:
    """Run the command in a process of its own; returns stdout and stderr."""
    command = [sys.executable, "-c", MAIN, *map(str, arguments)]
    given = stdin if isinstance(stdin, bytes) else stdin.encode()
    own = os.environ | {"PYTHONUTF8": "1"} | environment
    done = subprocess.run(command, input=given, capture_output=True, env=own, timeout=120)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    assert done.returncode == code, err
    return out, err


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(DOG).save(tmp_path / "park.png")
    return tmp_path / "park.png"


def refused(*arguments: Any, **options: Any) -> str:
    """The one sentence on stderr; nothing is on stdout and the exit code is 2."""
    out, err = chat(*arguments, code=2, **options)
    assert out == ""
    assert err.count("Error: ") == 1
    assert err.startswith("Error: ")
    assert err.count("\n") == 1
    assert err.endswith(".\n")
    return err


def test_one_question_prints_the_answer_and_nothing_else(bundles: Any, photo: Path) -> None:
    out, err = chat(photo, "-m", bundles(), *ASK)
    answer = json.loads(chat(photo, "-m", bundles(), *ASK, "--json")[0])
    assert out == answer["answer"] + "\n"
    assert err == ""
    assert answer["new_tokens"] == 6
    assert answer["finish"] == "length"


def test_statistics_go_to_stderr(bundles: Any, photo: Path) -> None:
    out, err = chat(photo, "-m", bundles(), *ASK, "--stats")
    assert out == chat(photo, "-m", bundles(), *ASK)[0]
    for word in ("open ", "image ", "prefill ", "decode 6 tokens", "tokens/s", "(length)"):
        assert word in err
        assert word not in out


def test_each_piped_line_is_a_question_of_one_conversation(bundles: Any, photo: Path) -> None:
    arguments = (photo, "-m", bundles(), "--max-tokens", "4", "--json")
    out, _ = chat(*arguments, stdin="what is this?\n\nand what colour? 🐕\n")
    first, second = map(json.loads, out.splitlines())
    assert second["prompt_tokens"] > first["prompt_tokens"] + 4
    assert second["prefill_tokens"] < first["prefill_tokens"]
    assert second["images_computed"] == 0


def test_sampling_is_repeatable_with_a_seed(bundles: Any) -> None:
    loud = ("-m", bundles(), *ASK, "--temperature", "2", "--top-p", "0.99")
    answers = [chat(*loud, "--seed", seed)[0] for seed in ("1", "1", "2")]
    assert answers[0] == answers[1] != answers[2]


def test_notes_about_images_go_to_stderr(bundles: Any, tmp_path: Path) -> None:
    frames = [Image.fromarray(picture) for picture in (DOG, CAT)]
    frames[0].save(tmp_path / "party.gif", save_all=True, append_images=frames[1:])
    _, err = chat(tmp_path / "party.gif", "-m", bundles(), *ASK)
    assert err.endswith("only the first is used.\n")


def test_bad_bundles_are_one_sentence_and_exit_code_2(folder: Path, tmp_path: Path) -> None:
    assert "There is no bundle folder" in refused("-m", tmp_path / "nowhere", *ASK)
    claim(folder, version=3)
    assert "is of version 3" in refused("-m", folder, *ASK)
    claim(folder, version=2)
    (folder / "decoder.onnx").write_bytes((folder / "decoder.onnx").read_bytes()[:-9])
    assert "is truncated or altered" in refused("-m", folder, *ASK)
    claim(folder, files=recorded(folder))
    assert "is not a readable ONNX graph" in refused("-m", folder, *ASK)
    (folder / "tokenizer.json").unlink()
    assert "The bundle lacks" in refused("-m", folder, *ASK)


def test_bad_questions_and_images_are_one_sentence_and_exit_code_2(
    bundles: Any, tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("hello")
    bundle = ("-m", bundles())
    assert "The question is empty" in refused(*bundle, "-p", "")
    assert "The question is empty" in refused(*bundle, "-p", "  ")
    assert "shorten it" in refused(*bundle, "-p", "7 " * 3000)
    assert "There is no file" in refused("missing.jpg", *bundle, *ASK)
    assert "not an image" in refused(tmp_path / "note.txt", *bundle, *ASK)
    assert "top_p is 3.0" in refused(*bundle, *ASK, "--top-p", "3")
    assert "max_tokens is 0" in refused(*bundle, "-p", "x", "--max-tokens", "0")
    assert "0 threads were asked for" in refused(*bundle, *ASK, "--threads", "0")
    assert "half a character" in refused(*bundle, stdin=b"\xff\xfe\n")
    strict = {"PYTHONIOENCODING": "utf-8:strict"}
    assert "is not utf-8 text" in refused(*bundle, stdin=b"\xff\xfe\n", **strict)


@pytest.mark.skipif(sys.platform == "win32", reason="arguments are Unicode on Windows")
def test_a_question_that_is_no_text_is_refused(bundles: Any) -> None:
    assert "half a character" in refused("-m", bundles(), "-p", os.fsdecode(b"\xff"))


def test_a_terminal_without_emoji_still_gets_the_rest(bundles: Any) -> None:
    plain = {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    arguments = ("-m", bundles(), "-p", "x", "--temperature", "9", "--seed", "3")
    out, _ = chat(*arguments, **plain)
    assert "?" in out
    assert len(out) == len(chat(*arguments)[0])


def test_a_reader_that_leaves_ends_the_answer_silently(bundles: Any) -> None:
    command = [sys.executable, "-c", MAIN, "-m", str(bundles()), "-p", "x", "--max-tokens", "1500"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_help_reads_like_a_manual_page_with_an_example() -> None:
    out, err = chat("--help")
    assert 'Example: lite-chat park.jpg -m bundle -p "How many dogs are there?"' in out
    assert err == ""


def test_a_picture_that_is_piped_in_goes_with_the_question(bundles: Any, photo: Path) -> None:
    ask = ("-m", bundles(), *ASK, "--json")
    shown = json.loads(chat(photo, *ask)[0])["answer"]
    assert shown != json.loads(chat(*ask)[0])["answer"]
    assert json.loads(chat(*ask, stdin=photo.read_bytes())[0])["answer"] == shown
    two = json.loads(chat(photo, *ask, stdin=photo.read_bytes())[0])
    assert two["prompt_tokens"] > json.loads(chat(photo, *ask)[0])["prompt_tokens"]


def test_a_text_that_is_piped_in_follows_the_question(bundles: Any, photo: Path) -> None:
    ask = (photo, "-m", bundles(), "--max-tokens", "6", "--json", "-p")
    given = json.loads(chat(*ask, "what is this?", stdin="größe\nof it\n")[0])
    written = json.loads(chat(*ask, "what is this?\n\ngröße\nof it")[0])
    assert given["answer"] == written["answer"]
    assert given["prompt_tokens"] == written["prompt_tokens"]
    assert chat(*ask, "hi", stdin=" \n")[0]
    assert "is not utf-8 text" in refused(
        *ask, "hi", stdin=b"\xff\xfe\n", PYTHONIOENCODING="utf-8:strict"
    )


def test_what_cannot_be_used_of_a_pipe_is_refused(bundles: Any, photo: Path) -> None:
    message = refused("-m", bundles(), stdin=photo.read_bytes())
    assert "Standard input is a picture, so questions cannot come from there" in message
    assert "cut short or damaged" in refused("-m", bundles(), *ASK, stdin=photo.read_bytes()[:99])
    assert "No question came on standard input" in refused(photo, "-m", bundles())


def test_a_pipe_that_nobody_writes_to_is_not_waited_for(bundles: Any) -> None:
    command = [sys.executable, "-c", MAIN, "-m", str(bundles()), *ASK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read().decode() == chat("-m", bundles(), *ASK)[0]
        assert process.wait(60) == 0


def test_a_question_may_name_its_picture(bundles: Any, photo: Path) -> None:
    arguments = ("-m", bundles(), "--max-tokens", "6", "--json")
    shown = json.loads(chat(photo, *arguments, "-p", "what is this?")[0])["answer"]
    for line in (f"what is this? {photo}", f"'{photo}' what is this?", f"{photo}\nwhat is this?"):
        assert json.loads(chat(*arguments, stdin=line)[0])["answer"] == shown
    assert json.loads(chat(*arguments, "-p", f"what is this? {photo}")[0])["answer"] == shown
    assert "There is no picture gone.png;" in refused("-m", bundles(), "-p", "what is gone.png?")


def test_pictures_are_given_as_paths_of_several_kinds(bundles: Any, photo: Path) -> None:
    ask = ("-m", bundles(), *ASK)
    shown = chat(photo, *ask)
    home = {"HOME": str(photo.parent), "USERPROFILE": str(photo.parent)}
    assert chat("~/park.png", *ask, **home) == chat(photo.as_uri(), *ask) == shown
    assert "is an address" in refused("https://example.org/a.png", *ask)


def test_a_bad_line_of_a_pipe_is_reported_and_the_rest_is_asked(bundles: Any) -> None:
    arguments = ("-m", bundles(), "--max-tokens", "4")
    good, _ = chat(*arguments, stdin="one\ntwo\n")
    out, err = chat(*arguments, stdin=f"one\n\n{'7' * 3000}\nmissing.png ?\ntwo\n", code=2)
    assert out == good
    first, second = [line for line in err.splitlines() if line.startswith("Error: ")]
    assert first.startswith("Error: Line 3: The prompt ")
    assert second.startswith("Error: Line 4: There is no picture missing.png;")


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_crash(bundles: Any, closed: str) -> None:
    command = f'exec "$0" -c "$1" -m "$2" -p hello --max-tokens 4 {closed}'
    arguments = ["sh", "-c", command, sys.executable, MAIN, str(bundles())]
    done = subprocess.run(arguments, capture_output=True, timeout=60)
    assert done.returncode == 0
    assert done.stderr == b""
    answer = chat("-m", bundles(), "-p", "hello", "--max-tokens", "4")[0]
    assert done.stdout.decode() == ("" if ">&-" in closed.replace("2>&-", "") else answer)


def test_the_notice_of_the_demo_model_comes_once_a_day(tmp_path: Path) -> None:
    own = {"MMGPT_LITE_CACHE": str(tmp_path)}
    ask = ("-p", "hello", "--max-tokens", "2")
    assert chat(*ask, "--quiet", **own)[1] == ""
    assert "demo model, which knows drawn scenes" in chat(*ask, **own)[1]
    assert chat(*ask, **own)[1] == ""
    (mark,) = (tmp_path / "notices").iterdir()
    os.utime(mark, (0, 0))
    assert "demo model" in chat(*ask, **own)[1]


@pytest.mark.parametrize(
    "module",
    [
        *("lite.commands.chat", "lite.commands.serve", "qlora.commands.train"),
        *("export.commands.export", "bench.commands.bench"),
    ],
)
def test_every_command_tells_its_version(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--version"], capture_output=True)
    assert done.returncode == 0
    assert done.stdout.decode().endswith(f", version {lite.__version__}\n")


def test_names_with_escape_sequences_are_printed_without(bundles: Any) -> None:
    name = "\x1b]0;owned\x07\x9b31m.png"
    for arguments in ((name, "-m", bundles(), *ASK), ("-m", f"no{name}", *ASK), (f"--{name}",)):
        _, err = chat(*arguments, code=2)
        assert "owned" in err
        assert not {"\x1b", "\x07", "\x9b"} & {*err}


def test_chatting_loads_nothing_that_only_training_needs(bundles: Any, photo: Path) -> None:
    code = (
        "import sys, lite\n"
        "def heavy(): return sorted({m.partition('.')[0] for m in sys.modules} & {'torch', "
        "'transformers', 'onnx', 'onnx_ir', 'open_clip', 'peft', 'qlora', 'export', 'bench'})\n"
        "assert not heavy(), heavy()\n"
        "from lite.commands.chat import main\n"
        "try: main()\n"
        "except SystemExit as stop: assert not stop.code\n"
        "assert not heavy(), heavy()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(photo), "-m", str(bundles()), *ASK],
        env=os.environ | {"MMGPT_LITE_CACHE": str(photo.parent / "cache")},
        capture_output=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_verify_hashes_the_large_files_again(
    bundles: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = "import lite.bundle.bundle as bundle; bundle.ALWAYS_HASHED = 1 << 20; "
    line = [sys.executable, "-c", small + MAIN, "-m", str(bundles()), *ASK]
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path))
    checked = [
        subprocess.run([*line, *more], capture_output=True, text=True, check=True).stderr
        for more in ((), (), ("--verify",))
    ]
    assert checked[1] == ""
    assert checked[0] == checked[2] != ""
    assert "Checking decoder.onnx.data..." in checked[2]
