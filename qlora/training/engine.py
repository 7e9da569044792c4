"""The engine of a run: one process, or several that share each step.

Contract: accelerate's engine with data parallelism alone. Each process holds the whole model, and
gradients are averaged; everything else that a launcher may have been configured for is the
recipe's to say.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    GradientAccumulationPlugin,
)

from lite.errors import BadInput

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
