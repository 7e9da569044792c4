"""The optimizer of the recipe, its schedule, and its state in a file."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import get_cosine_schedule_with_warmup

from qlora.recipes.schema import TrainingSettings
from qlora.training.optimizer import (
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    set_learning_rate,
)

KINDS = ["paged_adamw_32bit", "paged_adamw_8bit", "adamw_8bit", "adamw"]


def parameters() -> dict[str, nn.Parameter]:
    torch.manual_seed(0)
    # Above 4096 elements bitsandbytes keeps its state in 8 bits.
    return {
        "self_attn.lora_A": nn.Parameter(torch.randn(96, 64)),
        "gated_cross_attn_layer.lora_B": nn.Parameter(torch.randn(10, 8)),
        "never.used": nn.Parameter(torch.randn(4, 4)),
    }


def steps(optimizer: torch.optim.Optimizer, named: dict[str, nn.Parameter], span: range) -> None:
    for step in span:
        set_learning_rate(optimizer, 1e-2 / (step + 1))
        torch.manual_seed(step)
        for name, parameter in named.items():
            if name != "never.used":
                parameter.grad = torch.randn_like(parameter)
        optimizer.step()


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_optimizer_goes_on_bit_for_bit(tmp_path: Path, kind: str) -> None:
    settings = TrainingSettings(
        learning_rate=1e-2, optimizer=kind, weight_decay=0.1, decay_only="gated"
    )
    straight = parameters()
    steps(make_optimizer(straight, settings), straight, range(7))

    broken = parameters()
    optimizer = make_optimizer(broken, settings)
    steps(optimizer, broken, range(4))
    save_file(optimizer_tensors(optimizer, broken), tmp_path / "state.safetensors")

    resumed = {name: nn.Parameter(p.detach().clone()) for name, p in broken.items()}
    optimizer = make_optimizer(resumed, settings)
    restore_optimizer(optimizer, resumed, load_file(tmp_path / "state.safetensors"))
    steps(optimizer, resumed, range(4, 7))
    for name, parameter in straight.items():
        assert torch.equal(parameter, resumed[name]), name


def test_decay_falls_on_the_named_parameters_only() -> None:
    settings = TrainingSettings(learning_rate=0.1, weight_decay=0.5, decay_only="gated_cross")
    named = parameters()
    before = {name: p.detach().clone() for name, p in named.items()}
    optimizer = make_optimizer(named, settings)
    for parameter in named.values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in named.items():
        shrunk = before[name] * (1 - 0.1 * 0.5) if "gated" in name else before[name]
        torch.testing.assert_close(parameter.detach(), shrunk)


def test_the_cosine_schedule_is_the_one_of_transformers() -> None:
    settings = TrainingSettings(learning_rate=3e-4, warmup=5, schedule="cosine")
    dummy = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=3e-4)
    schedule = get_cosine_schedule_with_warmup(dummy, 5, 40)
    for step in range(40):
        assert math.isclose(learning_rate(step, 40, settings), schedule.get_last_lr()[0])
        dummy.step()
        schedule.step()


def test_a_constant_schedule_stays_at_its_peak_after_the_warm_up() -> None:
    settings = TrainingSettings(learning_rate=1.0, warmup=4, schedule="constant")
    assert [learning_rate(s, 9, settings) for s in range(6)] == [0, 0.25, 0.5, 0.75, 1.0, 1.0]
