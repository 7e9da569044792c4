"""The optimizer of a run, its learning rate, and its state as plain tensors.

Contract: the learning rate is a function of the step alone, so nothing of the schedule has to be
saved. The optimizer's state is read and written as named tensors for safetensors, and comes back
bit for bit, into paged memory where the optimizer keeps it there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from qlora.recipes.schema import TrainingSettings

STEP = "step"


def make_optimizer(parameters: Mapping[str, nn.Parameter], settings: TrainingSettings) -> Optimizer:
    """The recipe's optimizer over named parameters.

    Paged optimizers page to host memory on CUDA only; elsewhere they are the unpaged ones.
    """
    decayed = [p for name, p in parameters.items() if settings.decay_only in name]
    rest = [p for name, p in parameters.items() if settings.decay_only not in name]
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    kind = settings.optimizer
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=settings.learning_rate)
    import bitsandbytes.optim as bnb

    on_cuda = next(iter(parameters.values())).is_cuda
    if not on_cuda:
        kind = kind.removeprefix("paged_")  # type: ignore[assignment]
    classes = {
        "paged_adamw_32bit": bnb.PagedAdamW32bit,
        "paged_adamw_8bit": bnb.PagedAdamW8bit,
        "adamw_32bit": bnb.AdamW32bit,
        "adamw_8bit": bnb.AdamW8bit,
    }
    return classes[kind](groups, lr=settings.learning_rate)


def learning_rate(step: int, total: int, settings: TrainingSettings) -> float:
    """The rate of optimizer step `step` (from 0) of `total`.

    Linear warm-up, then constant or half a cosine to zero, as transformers'
    `get_cosine_schedule_with_warmup`, which the original training used.
    """
    peak, warmup = settings.learning_rate, settings.warmup
    if step < warmup:
        return peak * step / max(1, warmup)
    if settings.schedule == "constant":
        return peak
    progress = (step - warmup) / max(1, total - warmup)
    return peak * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def optimizer_tensors(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter]
) -> dict[str, Tensor]:
    """The state as `{parameter name}/{entry}: tensor` on the CPU; counters are int64 scalars."""
    tensors = {}
    for name, parameter in parameters.items():
        for entry, value in optimizer.state.get(parameter, {}).items():
            tensor = value if isinstance(value, Tensor) else torch.tensor(value)
            tensors[f"{name}/{entry}"] = tensor.detach().cpu().clone().contiguous()
    return tensors


def restore_optimizer(
    optimizer: Optimizer, parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_tensors` gave."""
    saved: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, entry = key.rpartition("/")
        saved.setdefault(name, {})[entry] = tensor
    for group_number, group in enumerate(optimizer.param_groups):
        names = {id(p): n for n, p in parameters.items()}
        for number, parameter in enumerate(group["params"]):
            entries = saved.get(names[id(parameter)])
            if entries is None:
                continue  # it had no gradient yet
            if hasattr(optimizer, "init_state"):  # bitsandbytes: makes paged memory where it should
                optimizer.init_state(group, parameter, group_number, number)
            state = optimizer.state[parameter]
            for entry, tensor in entries.items():
                present = state.get(entry)
                if isinstance(present, Tensor):
                    present.copy_(tensor)
                elif isinstance(present, int):
                    state[entry] = int(tensor)
                else:
                    # torch's AdamW keeps its step count on the CPU.
                    state[entry] = tensor.clone() if entry == STEP else tensor.to(parameter.device)
