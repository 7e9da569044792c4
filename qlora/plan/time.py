"""The time of a training run: operations and memory traffic over the device's figures.

Contract: a pure function; its two assumptions are constants here, and stated wherever it is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from qlora.plan.counts import PASSES, Counts
from qlora.plan.devices import Device
from qlora.plan.memory import nf4_bits
from qlora.plan.settings import FLOAT, Settings, Workload

# Assumed shares of the device's figures. torchtune states 2413 tokens/s of Llama-3.1-8B QLoRA on an
# RTX 4090 (README, packed, compiled), 66 % of its matrix units; uncompiled code reaches less.
COMPUTE_SHARE, BANDWIDTH_SHARE = 0.5, 0.8


@dataclass(frozen=True)
class Time:
    """How long it takes, in seconds.

    Attributes:
        tokens_per_second: over the whole run, images included.
        step: one optimizer step.
        total: all of `Workload`.
        steps: optimizer steps of it.
        roofline: tokens/s of rows with images at the device's full speed.
    """

    tokens_per_second: float
    step: float
    total: float
    steps: float
    roofline: float


def time(counts: Counts, settings: Settings, device: Device, work: Workload, adapters: int) -> Time:
    """Operations and traffic over what the device can do; they are taken not to overlap.

    Each pass over a row turns every 4-bit matrix into the compute type: the codes are read, the
    values written and read again. Images are encoded once.
    """
    peak = (device.bf16 if settings.width < FLOAT else device.fp32) * 1e12
    bytes_moved = nf4_bits(settings.double_quantization) / 8 + 2 * settings.width
    passes = PASSES if settings.checkpointing else PASSES - 1
    seconds = work.images * counts.vision_per_image / (peak * COMPUTE_SHARE)
    # Each kind has as many rows.
    rows = math.ceil(max(work.image_samples, work.text_samples) / settings.batch)
    kinds = (
        (True, work.image_samples, work.image_tokens),
        (False, work.text_samples, work.text_tokens),
    )
    for images, samples, length in kinds:
        operations = counts.training_per_token(
            adapters, images=images, checkpointing=settings.checkpointing, length=int(length)
        )
        seconds += samples * length * operations / (peak * COMPUTE_SHARE)
        if settings.base == "nf4":
            matrices = counts.matrices - (0 if images else counts.gated_matrices)
            traffic = passes * matrices * bytes_moved / (device.bandwidth * 1e9 * BANDWIDTH_SHARE)
            seconds += rows * traffic if samples else 0.0
    steps = max(1.0, rows / settings.accumulate)
    tokens = work.image_samples * work.image_tokens + work.text_samples * work.text_tokens
    return Time(
        tokens_per_second=tokens / seconds if seconds else 0.0,
        step=seconds / steps,
        total=seconds,
        steps=steps,
        roofline=peak / counts.training_per_token(adapters, checkpointing=settings.checkpointing),
    )
