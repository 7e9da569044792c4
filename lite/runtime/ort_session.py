"""ONNX Runtime sessions, opened one way everywhere.

Contract: on the device that `lite.runtime.device` chose, as many threads as there are physical
cores unless told, idle threads asleep between runs, no custom operator libraries.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import onnxruntime as ort

from lite.errors import BadInput, LiteError, first_line
from lite.runtime.device import CPU, PROVIDERS

# ONNX Runtime's scale: 3 is errors only. Ours are raised as exceptions, so it need not print.
SEVERITY_FATAL = 4


def open_session(
    graph: Path,
    device: str = CPU,
    threads: int | None = None,
    configure: Callable[[ort.SessionOptions], None] = lambda options: None,
) -> ort.InferenceSession:
    """A session for one graph.

    Args:
        graph: the ONNX file.
        device: of `lite.runtime.device.DEVICES`.
        threads: worker threads; None lets ONNX Runtime take one per physical core.
        configure: sets further options.

    Raises:
        BadInput: the number of threads makes no sense.
        LiteError: ONNX Runtime refuses the graph.
    """
    if threads is not None and not 1 <= threads <= 1024:
        raise BadInput(f"{threads} threads were asked for; give a number from 1 to 1024.")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or _threads_from_environment()
    options.log_severity_level = SEVERITY_FATAL
    # Workers that spin after a run would burn a core while the person reads or types.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    configure(options)
    try:
        return ort.InferenceSession(str(graph), options, providers=PROVIDERS[device])
    except Exception as error:
        raise LiteError(
            f"ONNX Runtime {ort.__version__} cannot open {graph} ({first_line(error)}); "
            f"update onnxruntime or export the bundle again."
        ) from error


def _threads_from_environment() -> int:
    """`OMP_NUM_THREADS` where a batch system set it, else 0: ONNX Runtime's own choice."""
    value = os.environ.get("OMP_NUM_THREADS", "")
    return int(value) if value.isdecimal() else 0
