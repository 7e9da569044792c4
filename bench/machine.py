"""What a measurement was made on: hardware, versions, memory in use, and bandwidth of reading it.

Contract: asks the system and this process only; a library that is not installed is left out.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from lite.runtime.cpu import cpu_features, cpu_name, memory_bytes

# What a figure of `lite/` depends on.
RUNTIME = ("mmgpt-lite", "onnxruntime")
# Larger than any cache of the CPUs meant here, so that memory is what is measured.
BANDWIDTH_BYTES = 1 << 29
# Instructions that decide which kernels a runtime takes.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm")


def machine(libraries: Iterable[str] = ()) -> dict[str, object]:
    """CPU, memory, system, and the versions of Python and of `libraries`."""
    report: dict[str, object] = {"cpu": cpu_name(), "cores": os.cpu_count()}
    if flags := [flag for flag in FLAGS if flag in cpu_features()]:
        report["cpu_flags"] = flags
    if memory := memory_bytes():
        report["memory_gb"] = round(memory / 1e9, 1)
    report["system"] = f"{platform.system()} {platform.machine()}"
    report["python"] = platform.python_version()
    for name in libraries:
        try:
            report[name] = version(name)
        except PackageNotFoundError:
            continue
    return report


def load_average() -> float | None:
    """Processes that were running or waiting in the last minute: above 0 the machine is busy."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage(2) would count the parent's before exec(2), too
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def read_bandwidth(threads: int, passes: int = 3) -> float:
    """Bytes a second that `threads` threads read from memory together: the best of some passes."""
    per_thread = BANDWIDTH_BYTES // threads // 8
    blocks = [np.ones(per_thread, dtype=np.int64) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(passes):
            start = time.perf_counter()
            # numpy gives up the interpreter lock within a reduction.
            list(pool.map(np.bitwise_or.reduce, blocks))
            best = max(best, threads * per_thread * 8 / (time.perf_counter() - start))
    return best


def gpu_read_bandwidth(passes: int = 10) -> float:
    """Bytes a second that the first GPU reads from its memory: the best of some passes."""
    import torch

    block = torch.ones(BANDWIDTH_BYTES, dtype=torch.int64, device="cuda")
    best = 0.0
    for _ in range(passes):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        block.sum()
        end.record()
        end.synchronize()
        best = max(best, 1000 * block.nbytes / start.elapsed_time(end))
    return best
