"""Processes that share no disk train as one run, or refuse together."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from qlora.recipes.schema import Recipe
from qlora.tiny.data import write_data
from tests.processes import PROCESSES
from tests.qlora.training.runs import adapter_bytes, log_text, small


def free_port() -> int:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        return chosen.getsockname()[1]


def train_together(
    recipes: list[Recipe], resume: bool = False
) -> list[tuple[int | None, str | None]]:
    """Two processes over gloo, each with a recipe of its own: their exit codes and last words."""
    port, started = free_port(), []
    for rank, recipe in enumerate(recipes):
        words = Path(recipe.output).parent / "words.txt"
        words.unlink(missing_ok=True)
        arguments = (rank, len(recipes), port, recipe.model_dump(), resume, words)
        process = PROCESSES.Process(target=_rank, args=arguments)
        process.start()
        started.append((process, words))
    for process, _ in started:
        process.join(600)
        process.kill()
        process.join()
    return [(p.exitcode, words.read_text() if words.exists() else None) for p, words in started]


def _rank(
    rank: int, world: int, port: int, values: dict[str, Any], resume: bool, words: Path
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": "0",  # each is the only process of its machine
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
    }
    import torch

    from lite.errors import LiteError
    from qlora.commands.train import _train

    torch.set_num_threads(1)
    try:
        _train(Recipe.model_validate(values), resume)
    except LiteError as error:
        words.write_text(str(error))
        raise SystemExit(2) from None


def apart(folder: Path, *settings: str) -> list[Recipe]:
    """The recipe of each of two machines, on folders of their own."""
    own = ("training.accumulate=2", "training.steps=4", "evaluation.answers=0", *settings)
    return [small(folder / machine / "run", *own) for machine in ("first", "second")]


@pytest.fixture
def machines(tmp_path: Path) -> Path:
    for machine in ("first", "second"):
        (tmp_path / machine).mkdir()
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_resumed_without_a_shared_disk_a_run_ends_as_if_it_had_not_stopped(machines: Path) -> None:
    recipes = apart(machines)
    assert train_together(recipes) == [(0, None), (0, None)]
    first, second = (Path(recipe.output) for recipe in recipes)
    adapter, log = adapter_bytes(first), log_text(first)
    assert not (second / "checkpoints").exists()
    # Back to the checkpoint after two steps, which only the first machine has.
    (first / "adapter").rename(first / "finished")
    newest = first / "checkpoints" / "step-00000004"
    assert newest.is_dir()
    newest.rename(first / "newest")
    assert train_together(recipes, resume=True) == [(0, None), (0, None)]
    assert log_text(first) == log
    assert adapter_bytes(first) == adapter
    assert not (second / "adapter").exists()
    state = [folder / "optimizer.safetensors" for folder in (newest, first / "newest")]
    one, two = map(load_file, state)
    assert one.keys() == two.keys()
    assert all((one[name] == two[name]).all() for name in one)
    # A finished run is finished for both.
    assert train_together(recipes, resume=True) == [(0, None), (0, None)]


def test_processes_with_different_recipes_refuse_together(machines: Path) -> None:
    one, two = apart(machines)
    other = two.model_copy(update={"training": two.training.model_copy(update={"clip": 7.0})})
    for code, words in train_together([one, other]):
        assert code == 2
        assert words == (
            "Process 1 was given another training.clip than process 0; give every process the same "
            "recipe and the same data."
        )


def test_processes_with_different_data_refuse_together(machines: Path) -> None:
    recipes = []
    for one in apart(machines):
        folder = Path(one.output).parent / "data"
        write_data(folder)
        settings = ("data.name=null", f"data.root={folder}")
        sets = "data.sets=[{path: dialogues.json, images: images}, {path: instructions.json}]"
        own = ("training.accumulate=2", "training.steps=4")
        recipes.append(small(Path(one.output), *own, *settings, sets))
    file = machines / "second" / "data" / "instructions.json"
    file.write_text(file.read_text().replace("twice", "three"))
    for code, words in train_together(recipes):
        assert code == 2
        assert words == (
            "Process 1 was given another data set instructions than process 0; give every process "
            "the same recipe and the same data."
        )


def test_where_one_process_has_no_data_both_say_so(machines: Path) -> None:
    one, two = apart(machines)
    settings = ["data.name=null", "data.sets=[{path: a.json}]"]
    folder = machines / "nowhere"
    recipes = [
        small(Path(r.output), *settings, f"data.root={folder}", "training.accumulate=2")
        for r in (one, two)
    ]
    for code, words in train_together(recipes):
        assert code == 2
        assert words == f"There is no data folder {folder}; give it as data.root."
