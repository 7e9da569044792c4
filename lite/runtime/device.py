"""Where a bundle runs: on the processor, or on an NVIDIA GPU that can.

Contract: the one place that knows devices. A GPU that is asked for and cannot be used costs one
sentence, never the conversation: the processor does the work then. Light to import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lite.errors import BadInput

if TYPE_CHECKING:
    import onnxruntime as ort

    from lite.bundle.manifest import Manifest

CPU, CUDA = "cpu", "cuda"
DEVICES = (CPU, CUDA)
# By the names of ONNX Runtime. Its arena would otherwise double with each request and keep that.
PROVIDERS: dict[str, list[Any]] = {
    CPU: ["CPUExecutionProvider"],
    CUDA: [
        ("CUDAExecutionProvider", {"arena_extend_strategy": "kSameAsRequested"}),
        "CPUExecutionProvider",
    ],
}


def choose_device(
    wanted: str, manifest: Manifest, notice: Callable[[str], None] = lambda sentence: None
) -> str:
    """The device that a bundle runs on.

    Args:
        wanted: of `DEVICES`.
        manifest: of the bundle.
        notice: called with a sentence if it cannot be the one that is wanted.

    Raises:
        BadInput: there is no device of this name.
    """
    if wanted not in DEVICES:
        raise BadInput(f"The device {wanted!r} is not supported; use {' or '.join(DEVICES)}.")
    if wanted == CUDA and not cuda_works():
        notice(
            "ONNX Runtime finds no GPU here, so the CPU does the work; the GPU needs NVIDIA's "
            "driver and the package onnxruntime-gpu instead of onnxruntime."
        )
        return CPU
    if wanted == CUDA and manifest.activations != "fp16":
        notice(
            "This bundle computes in fp32, which attention on a GPU does not take, so the CPU does "
            "the work; export it with --activations fp16."
        )
        return CPU
    return wanted


def cuda_works() -> bool:
    """Whether ONNX Runtime can use an NVIDIA GPU here."""
    import numpy as np
    import onnxruntime as ort

    try:
        ort.OrtValue.ortvalue_from_shape_and_type([1], np.float32, CUDA, 0)
    except Exception:  # of a build without CUDA, a missing driver or library, or a full GPU
        return False
    return True


def device_of(session: ort.InferenceSession) -> str:
    """Where a session runs."""
    return CUDA if PROVIDERS[CUDA][0][0] in session.get_providers() else CPU
