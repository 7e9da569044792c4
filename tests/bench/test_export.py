"""The checkpoints that `lite-bench export` starts from are those that it says."""

from pathlib import Path

import torch

from bench.export import write_checkpoints
from bench.random_weights import random_weights
from qlora.model import read_weights


def test_the_parts_on_disk_are_the_model(tmp_path: Path) -> None:
    made = random_weights("tiny")
    write_checkpoints(made, tmp_path)
    read = read_weights(
        tmp_path / "llama",
        str(tmp_path / "clip.json"),
        str(tmp_path / "clip.safetensors"),
        tmp_path / "flamingo.safetensors",
    )
    assert {*read.base} == {*made.base}
    for name in made.base:
        torch.testing.assert_close(read.base[name].half(), made.base[name], atol=0, rtol=0)
