"""The processor and its memory, as far as kernels and their speed depend on them.

Contract: asks the system only; what it does not tell is empty.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor as it calls itself."""
    name = platform.processor() or platform.machine()
    return next(iter(_cpuinfo("model name")), name) or name


def cpu_features() -> frozenset[str]:
    """Its instruction sets, as the system spells them."""
    lines = [*_cpuinfo("flags"), *_cpuinfo("Features")]  # x86, Arm
    return frozenset(lines[0].split()) if lines else frozenset()


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory_bytes() -> int:
    """Memory of the machine; 0 where the system does not tell."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cpuinfo(field: str) -> list[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    lines = (line.partition(":") for line in text.splitlines())
    return [value.strip() for name, _, value in lines if name.strip() == field]
