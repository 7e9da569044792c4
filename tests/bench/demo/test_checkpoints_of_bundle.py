"""A bundle read back: its own weights, rounded once, in files that the readers accept."""

from pathlib import Path

import pytest
from sentencepiece import SentencePieceProcessor

import lite
from bench.demo import checkpoints_of_bundle
from export.bundle import write_bundle
from export.precision import precision
from lite import demo
from qlora.families.flamingo import read_flamingo

QUESTIONS = "What is in the picture?", "How many pancakes are there?"
PICTURE = Path(__file__).parents[3] / "examples" / "breakfast.png"


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stages")
    checkpoints_of_bundle.command.main([str(demo.folder()), str(folder)], standalone_mode=False)
    return folder


def test_a_bundle_exported_again_says_the_same(stages: Path, tmp_path: Path) -> None:
    weights = read_flamingo(
        stages / "llama",
        str(stages / "clip.json"),
        str(stages / "clip.safetensors"),
        stages / "flamingo.safetensors",
        attend="preceding",
    )
    write_bundle(weights, tmp_path / "bundle", precision("int8"), lambda bundle: [])
    said = [_answers(folder) for folder in (demo.folder(), tmp_path / "bundle")]
    assert said[0] == said[1]


def test_the_tokenizer_is_the_bundles(stages: Path) -> None:
    pieces = SentencePieceProcessor(str(stages / "llama" / "tokenizer.model"))
    tokenizer = lite.load().tokenizer
    for text in ("There are two dogs.", 'It says "Qxz\u00e9".', "  A b\n\nc 12"):
        assert [pieces.bos_id(), *pieces.encode(text)] == tokenizer.encode([text])


def _answers(folder: Path) -> list[str]:
    # Whether guessed tokens run depends on measured times, and splits runs.
    chat = lite.load(folder).chat()
    shown = [PICTURE, None]
    return [
        "".join(piece.text for piece in chat.ask(question, image, prompt_lookup=False))
        for question, image in zip(QUESTIONS, shown, strict=True)
    ]
