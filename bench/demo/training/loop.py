"""The training loop of every stage before instruction tuning.

Contract: a batch is a function of its number and nothing else is random, so a resumed run equals
one that was never interrupted. Matrices inside of blocks are trained by Muon, all else by AdamW.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
import psutil
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Dataset

from bench.demo.training.muon import Muon
from lite.cli import say
from lite.files import replacing
from qlora.training.checkpoints import Checkpoints, step_of
from qlora.training.log import RunLog
from qlora.training.optimizer import optimizer_tensors, restore_optimizer, set_learning_rate

MODEL, OPTIMIZER = "model.safetensors", "optimizer-{}.safetensors"
WEIGHT_DECAY = 0.02
CLIP_GRADIENTS = 1.0
# The part of a run in which the rate rises, and the last part, in which it falls to zero.
WARMUP, COOLDOWN = 0.02, 0.5

Values = dict[str, float]


@dataclass(frozen=True)
class Plan:
    """How long and how fast a stage trains.

    Attributes:
        folder: of its checkpoints and log.
        steps: optimizer steps.
        batch: examples in a step.
        rate: highest learning rate.
        save_every: steps between checkpoints.
        workers: processes that make examples.
    """

    folder: Path
    steps: int
    batch: int
    rate: float
    save_every: int = 200
    workers: int = 1


def train(
    plan: Plan,
    model: nn.Module,
    examples: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    loss_of: Callable[[Any], tuple[Tensor, Values, int]],
    matrices: Callable[[str], bool],
) -> None:
    """Train the parameters of `model` that want a gradient, going on from the last checkpoint.

    Args:
        plan: see `Plan`.
        model: what is trained and saved.
        examples: example number i; numbers run from 0 to steps * batch.
        collate: examples to a batch.
        loss_of: a batch's loss, figures to log, and how many tokens went through.
        matrices: whether a parameter of this name is for Muon.
    """
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    device = next(iter(trained.values())).device
    fast = fast_bfloat16(device)
    muon = {n: p for n, p in trained.items() if p.dim() == 2 and matrices(n)}
    rest = {n: p for n, p in trained.items() if n not in muon}
    optimizers: list[tuple[Optimizer, dict[str, nn.Parameter]]] = [(_adamw(plan, rest), rest)]
    if muon:
        # Its updates scaled to the size of AdamW's (arXiv 2502.16982), so one rate serves both.
        kind = torch.optim.Muon if fast else Muon
        fitted = kind(muon.values(), plan.rate, WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw")
        optimizers.append((fitted, muon))
    plan.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=1)
    start = _restore(checkpoints, model, optimizers)
    model.train()
    with RunLog(plan.folder, start, plan.steps, active=True) as log:
        numbers = range(start * plan.batch, plan.steps * plan.batch)
        made = batches(examples, collate, numbers, plan.batch, plan.workers)
        for step, batch in enumerate(made, start=start):
            rate = rate_at(step, plan)
            with torch.autocast(device.type, torch.bfloat16, enabled=fast):
                loss, values, tokens = loss_of(batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained.values(), CLIP_GRADIENTS)
            for optimizer, _ in optimizers:
                set_learning_rate(optimizer, rate)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            values = {"loss": loss.item(), **values, "rate": rate}
            log.step(step + 1, values, tokens, psutil.Process().memory_info().rss)
            if (step + 1) % plan.save_every == 0 or step + 1 == plan.steps:
                checkpoints.save(step + 1, lambda into: _write(into, model, optimizers))
    model.eval()


def batches(
    examples: Dataset[Any],
    collate: Callable[[list[Any]], Any],
    numbers: range,
    size: int,
    workers: int,
) -> DataLoader[Any]:
    """Batches of the examples of these numbers, in order, made by so many processes beside."""
    return DataLoader(
        examples,
        size,
        sampler=numbers,
        num_workers=workers,
        collate_fn=collate,
        prefetch_factor=4 if workers else None,
    )


def stage(
    name: str, *, steps: int, batch: int, rate: float, of: str
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments of a stage's command: FOLDER, and options that become its `Plan`.

    Args:
        name: of the stage, and of its folder in FOLDER.
        steps, batch, rate: defaults.
        of: what a batch is of.

    Returns:
        A decorator for a function of `folder`, `plan`, `seed` and options of its own.
    """

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        @click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
        @click.option("--steps", default=steps, show_default=True)
        @click.option("--batch", default=batch, show_default=True, help=f"{of} in a step.")
        @click.option("--rate", default=rate, show_default=True, help="Highest learning rate.")
        @click.option("--seed", default=0, show_default=True)
        @click.option("--workers", default=1, show_default=True, help="Processes that make them.")
        @wraps(function)
        def command(
            folder: Path, steps: int, batch: int, rate: float, workers: int, **others: Any
        ) -> None:
            plan = Plan(folder / name, steps, batch, rate, workers=workers)
            function(folder=folder, plan=plan, **others)

        return command

    return decorate


def report_scores(scores: Values, path: Path) -> None:
    """Print the scores of a stage, from 0 to 1, and write them as JSON."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    say("  ".join(f"{name} {value:.1%}" for name, value in scores.items()))


def this_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fast_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; emulated, it takes eight times float32's time.

    A processor without it therefore gives another bundle for the same seeds.
    """
    return device.type != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def rate_at(step: int, plan: Plan) -> float:
    """Rises in a line, stays, and falls in a line (warmup-stable-decay, arXiv 2404.06395)."""
    rising = (step + 1) / max(1.0, WARMUP * plan.steps)
    falling = (plan.steps - step) / max(1.0, COOLDOWN * plan.steps)
    return plan.rate * min(1.0, rising, falling)


def _adamw(plan: Plan, parameters: dict[str, nn.Parameter]) -> Optimizer:
    wide = [p for p in parameters.values() if p.dim() > 1]
    narrow = [p for p in parameters.values() if p.dim() <= 1]
    groups = [
        {"params": wide, "weight_decay": WEIGHT_DECAY},
        {"params": narrow, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, plan.rate, betas=(0.9, 0.95))


def _write(
    folder: Path, model: nn.Module, optimizers: list[tuple[Optimizer, dict[str, nn.Parameter]]]
) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / MODEL)
    for number, (optimizer, parameters) in enumerate(optimizers):
        save_file(optimizer_tensors(optimizer, parameters), folder / OPTIMIZER.format(number))


def _restore(
    checkpoints: Checkpoints,
    model: nn.Module,
    optimizers: list[tuple[Optimizer, dict[str, nn.Parameter]]],
) -> int:
    """Put the last checkpoint back; gives the number of finished steps."""
    folder = checkpoints.latest()
    if folder is None:
        return 0
    model.load_state_dict(load_file(folder / MODEL))
    for number, (optimizer, parameters) in enumerate(optimizers):
        restore_optimizer(optimizer, parameters, load_file(folder / OPTIMIZER.format(number)))
    return step_of(folder)
