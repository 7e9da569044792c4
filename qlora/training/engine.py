"""The engine of a run: one process, or several that share each step.

Contract: accelerate's engine with data parallelism alone. Each process holds the whole model, and
gradients are averaged; everything else that a launcher may have been configured for is the
recipe's to say. Processes need share no disk: what the first one decides or has read is handed to
the others, and where they were given different things, all of them refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
    broadcast_object_list,
    gather_object,
)
from torch import Tensor

from lite.errors import BadInput, LiteError

Result = TypeVar("Result")

_SUPPORTED = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)


def make_accelerator() -> Accelerator:
    """The engine: one process, or what `accelerate launch` or `torchrun` has started.

    Raises:
        BadInput: the launcher is set up for FSDP, DeepSpeed or the like.
    """
    # Rows without images leave the gated blocks' adapters without a gradient.
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    # Accumulation and precision are the recipe's, whatever `accelerate launch` was configured for.
    engine = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no",
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
        kwargs_handlers=[unused],
    )
    if engine.distributed_type not in _SUPPORTED:
        raise BadInput(
            f"The launcher asks for {engine.distributed_type.value}, which shards weights that are "
            f"shared here; launch it with plain data parallelism (accelerate launch --multi_gpu)."
        )
    return engine


def by_first(engine: Accelerator, action: Callable[[], Result]) -> Result:
    """What `action` gives in the first process, in all of them; it runs in that one only.

    Raises:
        LiteError: in all processes, where the action raises it.
    """
    outcome: list[Result | LiteError | None] = [None]
    if engine.is_main_process:
        outcome[0] = _outcome(action)
    broadcast_object_list(outcome)
    if isinstance(outcome[0], LiteError):
        raise outcome[0]
    return outcome[0]  # type: ignore[return-value]


def by_each(engine: Accelerator, action: Callable[[], Result]) -> Result:
    """What `action` gives in each process.

    Raises:
        LiteError: in all processes, where the action raises it in one.
    """
    outcome = _outcome(action)
    failed = outcome if isinstance(outcome, LiteError) else None
    failures: list[LiteError | None] = gather_object([failed])
    if first := next((one for one in failures if one is not None), None):
        raise failed or first
    return outcome  # type: ignore[return-value]


def check_agreement(engine: Accelerator, facts: Mapping[str, str]) -> None:
    """Refuse a run whose processes were given different things.

    Args:
        facts: what must be equal, by its name.

    Raises:
        BadInput: in all processes, with the first thing that differs.
    """
    gathered: list[dict[str, str]] = gather_object([dict(facts)])
    for number, theirs in enumerate(gathered):
        names = sorted({*theirs, *gathered[0]})
        differing = [name for name in names if theirs.get(name) != gathered[0].get(name)]
        if differing:
            raise BadInput(
                f"Process {number} was given another {differing[0]} than process 0; give every "
                f"process the same recipe and the same data."
            )


def hand_out(engine: Accelerator, tensors: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """The first process's tensors, on the CPU, in all of them.

    Args:
        tensors: in the first process; of the others nothing is used.
    """
    if engine.num_processes == 1:
        assert tensors is not None
        return tensors
    own = tensors if engine.is_main_process and tensors is not None else {}
    kinds = [{name: (tensor.shape, tensor.dtype) for name, tensor in own.items()}]
    broadcast_object_list(kinds)
    received = {}
    for name, (shape, dtype) in kinds[0].items():
        if engine.is_main_process:
            tensor = own[name].to(engine.device).contiguous()
        else:
            tensor = torch.empty(shape, dtype=dtype, device=engine.device)
        torch.distributed.broadcast(tensor, src=0)
        received[name] = tensor.cpu()
    return received


def peak_memory(device: torch.device) -> int:
    """Bytes: the peak of the GPU's allocator, or what this process holds on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    info = psutil.Process().memory_info()
    return getattr(info, "peak_wset", info.rss)  # only Windows knows the peak here


def _outcome(action: Callable[[], Result]) -> Result | LiteError:
    try:
        return action()
    except LiteError as error:
        return error
