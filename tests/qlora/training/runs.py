"""Small real runs: in this process, or in one that can be killed."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import torch

from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import Recipe
from tests.processes import PROCESSES

SMALL = (
    "training.steps=8",
    "training.batch=2",
    "training.warmup=2",
    "data.holdout=2",
    "evaluation.answers=1",
    "evaluation.answer_tokens=4",
    "checkpoints.every=2",
    "adapter.rank=4",
    "adapter.dropout=0.1",
)


def small(output: Path, *settings: str) -> Recipe:
    """The tiny recipe, shorter."""
    return read_recipe("tiny", [*SMALL, f"output={output}", *settings])


def train(recipe: Recipe, resume: bool = False, largest_file: int = 0) -> Any:
    """Train as `qlora-train` does; returns the trainer.

    Args:
        recipe: what to train.
        resume: go on.
        largest_file: bytes after which the system refuses to write, as a full disk does.
    """
    from qlora.data.opening import open_data
    from qlora.training.assembly import make_trainer
    from qlora.training.engine import make_accelerator
    from qlora.training.folder import prepare_folder

    torch.set_num_threads(1)
    prepare_folder(recipe, resume)
    trainer = make_trainer(recipe, open_data(recipe), make_accelerator(), lambda *_: None)
    if resume:
        trainer.resume()
    if largest_file:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    trainer.run()
    return trainer


def train_in_process(recipe: Recipe, resume: bool = False, largest_file: int = 0) -> Any:
    """Start `train` in a process of its own."""
    arguments = (recipe.model_dump(), resume, largest_file)
    process = PROCESSES.Process(target=_child, args=arguments)
    process.start()
    return process


def run_to_end(recipe: Recipe, resume: bool = False, largest_file: int = 0) -> Any:
    """`train_in_process`, waited for; returns its exit code."""
    process = train_in_process(recipe, resume, largest_file)
    process.join()
    return process.exitcode


def _child(values: dict[str, Any], resume: bool, largest_file: int) -> None:
    train(Recipe.model_validate(values), resume, largest_file)


def train_as_rank(recipe: Path, rank: int, processes: int, port: int) -> None:
    """Be one of the processes that torchrun would start for `qlora-train`."""
    from qlora.commands.train import command

    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(processes),
        LOCAL_WORLD_SIZE=str(processes),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        ACCELERATE_USE_CPU="true",
    )
    command.main([str(recipe)])


def adapter_bytes(output: Path) -> bytes:
    """The finished adapter's weights."""
    return (output / "adapter" / "adapter_model.safetensors").read_bytes()


def log_text(output: Path) -> str:
    return (output / "log.jsonl").read_text()
