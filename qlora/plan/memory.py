"""The memory of a training run, counted from what the training step keeps.

Contract: a pure function of the model's counts and the settings. Each component says when it is
needed; the peak is what is always there and the worse of two moments: a layer's backward pass, or
the loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qlora.model.config import ModelConfig
from qlora.model.loss import CHUNK
from qlora.model.nf4 import BLOCK, NESTED_BLOCK
from qlora.plan.counts import Counts
from qlora.plan.settings import FLOAT, Settings

# Not in any tensor: CUDA context, kernels and cuBLAS workspaces (0.4 to 0.6 GB on Ampere and
# later); on a CPU the interpreter with torch, transformers and peft.
CUDA_OVERHEAD, CPU_OVERHEAD = 600_000_000, 1_000_000_000

ALWAYS, BACKWARD, LOSS = "always", "backward", "loss"


@dataclass(frozen=True)
class Component:
    """A part of the memory: bytes, and when they are needed."""

    name: str
    bytes: int
    phase: str = ALWAYS


def memory(
    counts: Counts,
    settings: Settings,
    adapted: dict[str, tuple[int, int]],
    adapters: int,
    cuda: bool,
) -> tuple[Component, ...]:
    """All components.

    Args:
        counts: of the model.
        settings: of the run.
        adapted: `Counts.adapted`.
        adapters: number of trained parameters.
        cuda: whether the device is a GPU.
    """
    overhead = ("CUDA context", CUDA_OVERHEAD) if cuda else ("program", CPU_OVERHEAD)
    return (
        *_resident(counts, settings, adapters),
        *_working(counts, settings, adapted),
        Component(*overhead),
    )


def peak(components: tuple[Component, ...]) -> int:
    """Bytes at the worst moment."""
    by_phase = {
        phase: sum(c.bytes for c in components if c.phase == phase)
        for phase in (ALWAYS, BACKWARD, LOSS)
    }
    return by_phase[ALWAYS] + max(by_phase[BACKWARD], by_phase[LOSS])


def nf4_bits(double: bool) -> float:
    """Bits for each value in NF4 with its constants (QLoRA, arXiv 2305.14314, section 3).

    A float32 constant for each block of 64, or an 8-bit one with a float32 for every 256 of them.
    """
    constants = 8 / BLOCK + 32 / (BLOCK * NESTED_BLOCK) if double else 32 / BLOCK
    return 4 + constants


def _resident(counts: Counts, settings: Settings, adapters: int) -> list[Component]:
    """What is there from the first step to the last.

    Adapters and their gradients are float32; AdamW keeps two values for each parameter, in 32
    bits, or in 8 with a float32 for each block of 256 (bitsandbytes, arXiv 2110.02861). Counted
    though a paged optimizer's could leave the GPU.
    """
    matrices = (
        counts.matrices * nf4_bits(settings.double_quantization) / 8
        if settings.base == "nf4"
        else counts.matrices * settings.width
    )
    moment = 1 + FLOAT / 256 if "8bit" in settings.optimizer else FLOAT
    held = "NF4" if settings.base == "nf4" else settings.compute
    config = counts.config
    visual = settings.batch * config.latents * config.dim_visual * settings.width
    return [
        Component(f"matrices of the base, {held}", math.ceil(matrices)),
        Component(f"rest of the base, {settings.compute}", counts.rest * settings.width),
        Component("adapters", adapters * FLOAT),
        Component("gradients", adapters * FLOAT),
        Component("optimizer", math.ceil(2 * moment * adapters)),
        Component("resampled tokens", visual),
    ]


def _working(
    counts: Counts, settings: Settings, adapted: dict[str, tuple[int, int]]
) -> list[Component]:
    """What a row needs while it is in work.

    With checkpointing each layer keeps its input only (arXiv 1604.06174) and one layer at a time
    is computed again. A packed row has a mask, as bits for each pair of tokens and once more in
    the compute type. The largest matrix exists dequantized while it multiplies. The loss holds one
    chunk of float32 logits twice (`qlora.model.loss`), after which the backward pass begins.
    """
    row, width, llama = settings.row, settings.width, counts.config.llama
    hidden = llama.hidden_size
    layers = [_layer(counts.config, width, adapted, i) for i in range(llama.num_hidden_layers)]
    kept = (len(layers) + 1) * hidden * width
    once = max(layers)
    if not settings.checkpointing:
        kept, once = kept + sum(layers), 0
    widest = max(llama.intermediate_size, 4 * hidden)
    once += 2 * width * widest + FLOAT * widest + 2 * width * hidden
    largest = max(map(math.prod, counts.linears.values())) if settings.base == "nf4" else 0
    mask = row * row * (1 + width) if settings.batch > 1 else 0
    return [
        Component(
            "inputs of the layers" if settings.checkpointing else "activations", kept * row + mask
        ),
        Component(
            "one layer, computed again" if settings.checkpointing else "gradients of a layer",
            once * row,
            BACKWARD,
        ),
        Component("largest matrix, dequantized", largest * width, BACKWARD),
        Component("loss, one chunk", min(CHUNK, row) * llama.vocab_size * 2 * FLOAT, LOSS),
        Component("gradient of the last layer's output", row * hidden * width, LOSS),
    ]


def _layer(
    config: ModelConfig, width: int, adapted: dict[str, tuple[int, int]], number: int
) -> int:
    """Bytes that one layer keeps for its own backward pass, for each token.

    A frozen matrix keeps nothing of its input; an adapter keeps it in float32 (peft casts it).
    LLaMA's norms keep float32 inputs, attention q, k, v and output, the feed-forward the gate
    before and after the activation and the other half. A gated block's norms and GELU keep their
    inputs.
    """
    llama, hidden = config.llama, config.llama.hidden_size
    inputs = sum(
        columns
        for path, (_, columns) in adapted.items()
        if path.startswith(f"model.layers.{number}.") and not path.endswith("to_kv")
    )
    keys = hidden // llama.num_attention_heads * llama.num_key_value_heads
    attention = 2 * hidden + 2 * keys
    own = 2 * hidden * FLOAT + (attention + 3 * llama.intermediate_size) * width
    gated = (2 * hidden + 4 * hidden) * width if number in config.injection.layers else 0
    return inputs * FLOAT + own + gated
