"""`qlora-train` as people run it, and what comes of it in the other commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from export.commands.export import command as export
from lite.cli import run
from lite.commands.chat import command as chat
from qlora.commands.train import command as train

SHORT = ("training.steps=3", "training.batch=1", "adapter.rank=4", "data.holdout=1")
SHORT += ("evaluation.answers=1", "evaluation.answer_tokens=4")
COMMAND = [sys.executable, "-m", "qlora.commands.train"]


def exit_code(command: Any, *arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        run(command, [str(argument) for argument in arguments])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def write(path: Path, records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records))
    return path


def asked(image: str | None, *texts: str, first: str = "human") -> dict[str, Any]:
    """A LLaVA record."""
    order = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    turns = [{"from": order[i % 2], "value": text} for i, text in enumerate(texts)]
    return {"id": "7", "conversations": turns} | ({"image": image} if image else {})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with one picture in `data`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    Image.new("RGB", (40, 40), "red").save(tmp_path / "data" / "red.png")
    return tmp_path


def own_data(*sets: str) -> list[str]:
    """Settings that train the tiny model on data sets of one's own."""
    listed = ", ".join(f"{{path: {path}}}" for path in sets)
    return [*SHORT, "data.holdout=0", "data.name=null", f"data.sets=[{listed}]", "output=run"]


def test_from_recipe_to_answer(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The README's three commands, with fewer steps."""
    assert exit_code(train, "tiny", *SHORT) == 0
    assert exit_code(export, "tiny", "--lora", "runs/tiny/adapter", "-o", "tiny-chat") == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "NF4 merge, bf16" in said
    question = ("-p", "What is in the picture?", "--max-tokens", "5")
    assert exit_code(chat, "runs/tiny/data/images/0.png", "-m", "tiny-chat", *question) == 0
    assert capfd.readouterr().out.endswith("\n")


def test_the_plan_comes_without_a_download(folder: Path, capsys: Any) -> None:
    assert exit_code(train, "mmgpt-9b", "--dry-run", "--gpu", "RTX 4060", "--json") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["parameters"]["trained"] == 23_461_888
    assert plan["memory"]["fits"]
    assert exit_code(train, "mmgpt-9b", "--dry-run", "--gpu", "4060", "model.base=none") == 0
    assert "model.base=nf4" in " ".join(capsys.readouterr().out.split())
    assert [path.name for path in folder.iterdir()] == ["data"]


def test_inspect_shows_what_is_trained(folder: Path, capsys: Any) -> None:
    write(folder / "data" / "a.json", [asked("red.png", "<image>\nWhat is it?", "A red field.")])
    assert exit_code(train, "tiny", "--inspect", "1", *own_data("a.json")) == 0
    shown = capsys.readouterr().out
    assert "<image: red.png>" in shown
    assert "⟦A red field.■⟧" in shown
    assert not (folder / "run" / "checkpoints").exists()


def test_inspect_shows_a_set_in_its_own_template(folder: Path, capsys: Any) -> None:
    write(folder / "data" / "a.json", [asked("red.png", "<image>\nWhat is it?", "A red field.")])
    settings = [s.replace("a.json", "a.json, template: llava_v1") for s in own_data("a.json")]
    assert exit_code(train, "tiny", "--inspect", "1", *settings) == 0
    shown = capsys.readouterr().out
    assert "ASSISTANT:" in shown
    assert "### Response:" not in shown


def test_the_audit_warns_of_short_answers(folder: Path, capsys: Any) -> None:
    records = [asked("red.png", f"<image>\nIs it red {i}?", "Yes") for i in range(20)]
    write(folder / "data" / "vqa.json", [*records, asked("gone.png", "<image>\nWhat?", "Nothing.")])
    assert exit_code(train, "tiny", "--audit", "--json", *own_data("vqa.json")) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sets"][0]["lengths"]["one_word"] == pytest.approx(1)
    assert any("vqa" in warning for warning in found["warnings"])
    assert "missing image" in json.dumps(found)


GOOD = asked("red.png", "<image>\nWhat is it?", "A red field.")
BAD: dict[str, tuple[Any, str]] = {
    "a missing image": ([GOOD, asked("gone.png", "<image>\nWhat?", "It.")], "data.missing_images"),
    "a path out of the root": ([GOOD, asked("../../x.png", "What?", "It.")], "../../x.png"),
    "an empty answer": ([GOOD, asked("red.png", "<image>\nWhat?", "")], "data.bad_records"),
    "no trainable token": ([asked(None, "word " * 900, "It.")], "data.max_tokens"),
    "no record": ([], "a.json"),
    "no known format": ([{"question": "?", "reply": "!"}], "type"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_data_is_an_error_before_training(folder: Path, what: str, capsys: Any) -> None:
    records, named = BAD[what]
    write(folder / "data" / "a.json", records)
    assert exit_code(train, "tiny", *own_data("a.json")) == 2
    error = capsys.readouterr().err
    assert error.rstrip().splitlines()[-1].startswith("Error: ")
    assert named in error
    assert not (folder / "run" / "log.jsonl").exists()


def test_a_cut_off_file_is_an_error_with_its_position(folder: Path, capsys: Any) -> None:
    path = write(folder / "data" / "a.json", [GOOD, GOOD])
    path.write_text(path.read_text()[:-30])
    assert exit_code(train, "tiny", *own_data("a.json")) == 2
    assert "byte" in capsys.readouterr().err


def test_what_may_be_skipped_is_counted(folder: Path, capsys: Any) -> None:
    (folder / "data" / "torn.png").write_bytes((folder / "data" / "red.png").read_bytes()[:50])
    records = [GOOD] * 6 + [
        asked("gone.png", "<image>\nWhat?", "It."),
        asked("red.png", "<image>\nWhat?", ""),
        asked("red.png", "I greet you.", "<image>\nWhat is it?", "A field.", first="gpt"),
    ]
    write(folder / "data" / "a.json", records)
    skip = ("data.missing_images=skip", "data.bad_records=skip")
    assert exit_code(train, "tiny", *own_data("a.json"), *skip) == 0
    said = capsys.readouterr().err
    assert "a: 7 records (2 left out: " in said
    assert "1 missing image" in said
    # An image that is there and broken is found only when it is decoded.
    write(folder / "data" / "b.json", [GOOD, asked("torn.png", "<image>\nWhat?", "It.")] * 4)
    more = ("output=torn", "training.steps=4", "checkpoints.every=1")
    assert exit_code(train, "tiny", *own_data("b.json"), *more) == 1
    assert "torn.png" in capsys.readouterr().err
    assert exit_code(train, "tiny", *own_data("b.json"), *more, *skip, "output=skipped") == 0
    assert "broken image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.yaml"], "mmgpt-9b"),
        (["tiny", "training.lr=1"], "training.learning_rate"),
        (["tiny", "adapter.targets=[q_prj]", *SHORT], "q_proj"),
        (["tiny", "--gpu", "4090"], "--dry-run"),
        (["tiny", "--dry-run", "--gpu", "4099"], "RTX 4090"),
        (["tiny", "--dry-run", "--audit"], "one of them"),
        (["mmgpt-9b", "data.root=nowhere"], "data.root"),
        (["tiny", "data.holdout=1000"], "data.holdout"),
        (["tiny", "output=data/red.png"], "output"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    folder: Path, arguments: list[str], named: str, capsys: Any
) -> None:
    assert exit_code(train, *arguments) == 2
    error = capsys.readouterr().err.rstrip().splitlines()[-1]
    assert error.startswith("Error: ")
    assert named in error


def test_ctrl_c_keeps_what_was_trained(tmp_path: Path) -> None:
    settings = [*SHORT, "training.steps=100000", f"output={tmp_path / 'run'}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    line = [*COMMAND, "tiny", *settings]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        while not process.stderr.readline().startswith("step 1 "):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
    assert process.returncode == 130
    assert "--resume" in said
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "checkpoints").glob("step-*"))
