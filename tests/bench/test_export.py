"""The checkpoints that `lite-bench export` starts from are those that it says."""

from pathlib import Path

import torch

from bench.export import PIECES, PRIVATE, _tokenizer, write_checkpoints
from bench.random_weights import random_weights
from qlora.checkpoints.sentencepiece_file import read_sentencepiece
from qlora.families.flamingo import read_flamingo


def test_the_tokenizer_has_a_piece_for_every_row(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(_tokenizer(3 * PIECES))
    pieces = read_sentencepiece(path)
    assert len(pieces.vocab) == 3 * PIECES
    assert all(max(map(ord, "".join(pair))) < PRIVATE for pair in pieces.merges)


def test_the_parts_on_disk_are_the_model(tmp_path: Path) -> None:
    made = random_weights("tiny")
    write_checkpoints(made, tmp_path)
    read = read_flamingo(
        tmp_path / "llama",
        str(tmp_path / "clip.json"),
        str(tmp_path / "clip.safetensors"),
        tmp_path / "flamingo.safetensors",
    )
    assert {*read.base} == {*made.base}
    for name in made.base:
        torch.testing.assert_close(read.base[name].half(), made.base[name], atol=0, rtol=0)
