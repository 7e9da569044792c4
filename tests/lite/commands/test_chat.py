"""`lite-chat` as a person or a script meets it: streams, exit codes, and no torch."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

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
    claim(folder, version=2)
    assert "is of version 2" in refused("-m", folder, *ASK)
    claim(folder, version=1)
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
