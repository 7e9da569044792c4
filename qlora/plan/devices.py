"""What can train: named GPUs with their vendors' figures, and this machine, looked at.

Contract: a `Device` is plain numbers. The table needs nothing but itself; `this_machine` asks torch
what there is and measures, in about a second, what nobody states.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil
import torch

from lite.errors import BadInput

GIB = 1 << 30

# How a chip is called inside longer names ("NVIDIA A100-SXM4-80GB"). Chips that only share the
# beginning of a name (4070 Ti, a laptop's 4090, A10G) are others, with other speeds.
_CHIP = re.compile(
    r"(?:\b|rtx ?)(\d{4}|[tlah]\d{1,3})(?![a-z0-9])(?![ -]?(?:ti|super|laptop))", re.IGNORECASE
)
_SIZE = re.compile(r"(\d+) ?GB", re.IGNORECASE)


@dataclass(frozen=True)
class Device:
    """What a plan needs to know of a device.

    Attributes:
        name: as its vendor calls it.
        memory: bytes that programs can have.
        bf16: dense matrix multiplication in bfloat16 with float32 sums, in TFLOP/s.
        fp32: the same in float32.
        bandwidth: of its memory, in GB/s.
        measured: whether the speeds were measured here and not taken from a data sheet.
        cuda: whether it is a GPU.
    """

    name: str
    memory: int
    bf16: float
    fp32: float
    bandwidth: float
    measured: bool = False
    cuda: bool = True


def _gpu(name: str, gib: float, bf16: float, fp32: float, bandwidth: float) -> Device:
    return Device(name, int(gib * GIB), bf16, fp32, bandwidth)


# Memory: total as nvidia-smi reports it, in GiB (with error correction on where it is the default).
# Speeds without sparsity; sources:
# - NVIDIA Ampere GA102 white paper (RTX 3060 to 3090), Ada GPU architecture white paper (RTX 40),
#   RTX Blackwell GPU architecture white paper (RTX 5090): "BF16 tensor with FP32 accumulate",
#   which on GeForce is twice the FP32 rate;
# - data sheets of T4, L4, A10, A100, H100 SXM and H200 SXM, halved where they state sparsity.
# The T4 has no bfloat16 units, so what it does in that type runs at its FP32 rate.
DEVICES = {
    device.name: device
    for device in (
        _gpu("RTX 3060 12GB", 12.0, 25.5, 12.7, 360),
        _gpu("RTX 3070 8GB", 8.0, 40.6, 20.3, 448),
        _gpu("RTX 3090", 24.0, 71.0, 35.6, 936),
        _gpu("RTX 4060 8GB", 8.0, 30.2, 15.1, 272),
        _gpu("RTX 4070 12GB", 12.0, 58.3, 29.1, 504),
        _gpu("RTX 4080 16GB", 16.0, 97.5, 48.7, 717),
        _gpu("RTX 4090", 24.0, 165.2, 82.6, 1008),
        _gpu("RTX 5090", 31.8, 209.5, 104.8, 1792),
        _gpu("T4", 15.0, 8.1, 8.1, 300),
        _gpu("L4", 22.5, 121.0, 30.3, 300),
        _gpu("A10", 22.5, 125.0, 31.2, 600),
        _gpu("A100 40GB", 40.0, 312.0, 19.5, 1555),
        _gpu("A100 80GB", 80.0, 312.0, 19.5, 2039),
        _gpu("H100 80GB", 79.6, 989.4, 66.9, 3350),
        _gpu("H200 141GB", 140.4, 989.4, 66.9, 4800),
    )
}


def named_device(name: str) -> Device:
    """The GPU that a person means: `4090`, `RTX4090`, `a100-80gb` and the like are understood.

    Raises:
        BadInput: no GPU of the table, or several (the A100 comes with 40 and with 80 GB).
    """
    size = _SIZE.search(name)
    found = [
        device
        for device in _same_chip(name)
        if size is None or (_SIZE.search(device.name) or size)[1] == size[1]
    ]
    if len(found) == 1:
        return found[0]
    names = ", ".join(device.name for device in found or DEVICES.values())
    what = "means several GPUs" if found else "is no GPU that there are figures for"
    raise BadInput(f"--gpu {name} {what}; give one of {names}.")


def this_machine() -> Device:
    """The first GPU that torch sees, or else the CPU. Takes about a second."""
    if torch.cuda.is_available():
        return _this_gpu()
    threads, cpu = torch.get_num_threads(), torch.device("cpu")
    return Device(
        name=f"CPU, {threads} {'thread' if threads == 1 else 'threads'}",
        memory=psutil.virtual_memory().total,
        bf16=_multiply_rate(cpu, torch.bfloat16, 1024),
        fp32=_multiply_rate(cpu, torch.float32, 1024),
        bandwidth=_copy_rate(cpu, 1 << 26),
        measured=True,
        cuda=False,
    )


def _this_gpu() -> Device:
    found, gpu = torch.cuda.get_device_properties(0), torch.device("cuda", 0)
    known = min(
        _same_chip(found.name), key=lambda d: abs(d.memory - found.total_memory), default=None
    )
    if known is not None:
        return replace(known, name=found.name, memory=found.total_memory)
    return Device(
        name=found.name,
        memory=found.total_memory,
        bf16=_multiply_rate(gpu, torch.bfloat16, 4096),
        fp32=_multiply_rate(gpu, torch.float32, 4096),
        bandwidth=_copy_rate(gpu, 1 << 28),
        measured=True,
    )


def _same_chip(name: str) -> list[Device]:
    chip = _CHIP.search(name)
    if chip is None:
        return []
    return [d for d in DEVICES.values() if chip[1].lower() in d.name.lower().split()]


def _multiply_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """TFLOP/s of square matrices."""
    a = torch.ones(size, size, dtype=dtype, device=device)
    return 2 * size**3 * _rate(device, lambda: a @ a) / 1e12


def _copy_rate(device: torch.device, size: int) -> float:
    """GB/s read and written when `size` bytes are copied."""
    a = torch.ones(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    return 2 * size * _rate(device, lambda: b.copy_(a)) / 1e9


def _rate(device: torch.device, work: Callable[[], object], seconds: float = 0.25) -> float:
    """How often a second `work` is done."""

    def synchronize() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    work()  # the first time picks and loads kernels
    synchronize()
    start, done = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < seconds:
        work()
        synchronize()
        done += 1
    return done / taken
