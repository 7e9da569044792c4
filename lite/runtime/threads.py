"""How many threads decode fastest here: measured once, then remembered.

Contract: the number of physical cores is a good guess, but memory may be busy before all of them
are, cores may be of two kinds, and a container may have fewer than it sees. So the first use of a
large decoder on a machine tries a few numbers on the decoder itself, and notes the best in the
user's cache. A number that was given (`threads`, `OMP_NUM_THREADS`) is never overruled.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import onnxruntime as ort

from lite.bundle.bundle import Bundle
from lite.bundle.manifest import DECODER
from lite.files import replacing
from lite.runtime.cpu import cpu_name, usable_cores
from lite.runtime.decoder import Decoder
from lite.runtime.device import CPU
from lite.userdirs import cache_dir

# A smaller decoder answers in milliseconds a token anyway; ONNX Runtime's own choice will do.
MIN_DECODER_BYTES = 1 << 26
# Decoding steps that are timed; the quickest counts.
STEPS = 5
# More threads must be so many times faster, because they keep more cores from other work.
MIN_SPEEDUP = 1.03
# From so many times the best step on, fewer threads need not be tried.
MAX_SLOWDOWN = 1.25


def choose_threads(
    bundle: Bundle,
    device: str,
    notice: Callable[[str], None] = lambda sentence: None,
    graph: Path | None = None,
) -> int | None:
    """Threads for a bundle's decoder where nobody named a number; None is ONNX Runtime's choice.

    Args:
        bundle: whose decoder it is.
        device: as for `Decoder.open`.
        notice: called with a sentence before a measurement, which takes as long as opening the
            decoder a few times.
        graph: the form of the decoder graph that will be opened, see `Decoder.open`.
    """
    sizes = (r.size for name, r in bundle.manifest.files.items() if name.startswith(DECODER))
    told = os.environ.get("OMP_NUM_THREADS", "").isdecimal()
    if device != CPU or told or sum(sizes) < MIN_DECODER_BYTES:
        return None
    note = _note(bundle)
    remembered = _read(note)
    if remembered is None:
        notice("Measuring how many threads decode fastest, once for this model and machine...")
        seconds = measure(bundle, device, candidates(usable_cores()), graph)
        remembered = fastest(seconds)
        _write(note, remembered)
    return remembered


def candidates(cores: int) -> list[int]:
    """Numbers to try, most first."""
    return sorted({cores, 3 * cores // 4, cores // 2, cores // 4} - {0}, reverse=True)


def measure(
    bundle: Bundle, device: str, counts: Iterable[int], graph: Path | None = None
) -> dict[int, float]:
    """Seconds that a decoding step takes with each number of threads."""
    seconds: dict[int, float] = {}
    for count in counts:
        seconds[count] = _step(Decoder.open(bundle, device, count, graph))
        if seconds[count] > MAX_SLOWDOWN * min(seconds.values()):
            break
    return seconds


def fastest(seconds: dict[int, float]) -> int:
    """The fewest threads among those that are about as fast as any."""
    best = min(seconds.values())
    return min(count for count, taken in seconds.items() if taken <= MIN_SPEEDUP * best)


def _step(decoder: Decoder) -> float:
    ids, taken = [1, 1], []
    decoder.logits(ids)
    for _ in range(STEPS):
        ids.append(1)
        start = time.perf_counter()
        decoder.logits(ids)
        taken.append(time.perf_counter() - start)
    return min(taken)


def _note(bundle: Bundle) -> Path:
    """Where the number is kept: for this model, processor and version."""
    graph = bundle.manifest.files[DECODER].sha256
    key = f"{graph} {cpu_name()} {usable_cores()} {ort.__version__}"
    return cache_dir("threads") / hashlib.sha256(key.encode()).hexdigest()


def _read(note: Path) -> int | None:
    try:
        text = note.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() and 1 <= int(text) <= usable_cores() else None


def _write(note: Path, count: int) -> None:
    try:
        with replacing(note) as partial:
            partial.write_text(f"{count}\n")
    except OSError:
        pass  # it is measured again the next time
