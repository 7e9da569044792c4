"""`lite-export` as people run it."""

import json
from dataclasses import replace

import pytest

from export.commands.export import command
from lite.cli import run
from lite.errors import BadInput
from qlora.families.models import MODELS, Checkpoints
from tests.conftest import CHECKPOINTS, LORA
from tests.hub_server import serve_hub

PARTS = [
    *("--llama", str(CHECKPOINTS["llama"])),
    *("--clip", CHECKPOINTS["clip_config"]),
    *("--clip-weights", CHECKPOINTS["clip"]),
    *("--flamingo", str(CHECKPOINTS["flamingo"])),
]
COMMAND = ["-m", "export.commands.export"]


def exit_code(*arguments):
    with pytest.raises(SystemExit) as stop:
        run(command, [str(argument) for argument in arguments])
    return stop.value.code


def test_exports_and_prints_the_proofs(tmp_path, capfd):
    assert exit_code(*PARTS, "--lora", LORA, "-o", tmp_path / "b") == 0
    printed = capfd.readouterr()
    assert "adapter merged" in printed.out
    assert "mean KL divergence" in printed.out
    assert "M parameters" in printed.err


def test_the_tiny_model_needs_nothing_and_says_what_it_is(tmp_path, capfd):
    assert exit_code("tiny", "-o", tmp_path / "tiny", "--precision", "int4", "--json") == 0
    printed = capfd.readouterr()
    assert "random weights" in printed.err
    report = json.loads(printed.out)
    assert report["bundle"] == str(tmp_path / "tiny")
    assert all(proof["holds"] for proof in report["proofs"])


BAD = {
    "exists already": [*PARTS, "-o", "."],
    "checkpoints are incomplete": ["--llama", "x", "-o", "new"],
    "neither a path here": [*PARTS[:-1], "no such file.pt", "-o", "new"],
    "Invalid value for '[NAME]'": ["mmgpt-10b", "-o", "new"],
    "no such adapter": ["tiny", "--lora", "no such adapter", "-o", "new"],
    "there is none; give --lora": [*PARTS, "--merge-base", "nf4", "-o", "new"],
    "holds LoRA matrices": [*PARTS[:-1], str(LORA), "-o", "new"],
    "not an OpenFlamingo": [*PARTS[:-1], CHECKPOINTS["clip"], "-o", "new"],
}


@pytest.mark.parametrize("sentence", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert exit_code(*BAD[sentence]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (error,) = [line for line in printed.err.splitlines() if line.startswith("Error: ")]
    assert sentence in error
    assert list(tmp_path.iterdir()) == []


def test_parts_of_a_published_set_can_be_replaced():
    given = dict.fromkeys(["llama", "clip", "clip_weights", "flamingo", "lora", "attend"])
    published = MODELS["mmgpt-9b"].checkpoints
    assert Checkpoints.with_parts(published, given) == published
    given["llama"] = "my-llama"
    assert Checkpoints.with_parts(published, given) == replace(published, llama="my-llama")


def test_a_published_folder_can_be_replaced_by_another_and_parts_cannot():
    llava, mmgpt = (MODELS[name].checkpoints for name in ("llava-1.5-7b", "mmgpt-9b"))
    given = {"model": "my-llava", "llama": "vicuna"}
    assert Checkpoints.with_parts(llava, given) == Checkpoints.whole("my-llava", llama="vicuna")
    with pytest.raises(BadInput, match="my-llava is a whole model"):
        Checkpoints.with_parts(mmgpt, given)
    with pytest.raises(BadInput, match="flamingo has no meaning"):
        Checkpoints.with_parts(llava, {"flamingo": "checkpoint.pt"})


def test_checkpoints_come_from_a_hub_by_name(tmp_path):
    llama = CHECKPOINTS["llama"]
    files = {f"people/llama/{path.name}": path.read_bytes() for path in llama.iterdir()}
    files["people/flamingo/checkpoint.pt"] = CHECKPOINTS["flamingo"].read_bytes()
    with serve_hub(files) as hub:
        hub.python(
            tmp_path,
            *COMMAND,
            *("--llama", "people/llama", "--flamingo", "people/flamingo/checkpoint.pt"),
            *PARTS[2:6],
            *("-o", str(tmp_path / "b")),
        )
    assert (tmp_path / "b" / "manifest.json").exists()
