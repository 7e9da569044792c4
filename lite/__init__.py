"""The edge runtime: chat about images with a quantized bundle, without torch or any network.

Contract: needs no torch, no transformers and no network; imports nothing of `qlora`, `export` or
`bench`. Its names are imported at their first use.

Example:
    >>> import lite
    >>> chat = lite.load("bundle").chat()  # lite.load() opens the demo model
    >>> for event in chat.ask("What is this?", image="photo.jpg"):
    ...     print(event.text, end="")
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

# ONNX Runtime reads it once, when it is imported, which nothing does before this line. Otherwise
# from 1.29 on it writes a device id into the user's cache, and looks up Microsoft's server.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from lite.chat.answer import StreamEvent, Timings
    from lite.chat.chat import Chat
    from lite.chat.model import Model, load
    from lite.chat.sampling import Sampling
    from lite.errors import BadInput, LiteError

    __version__: str

__all__ = [
    "BadInput",
    "Chat",
    "LiteError",
    "Model",
    "Sampling",
    "StreamEvent",
    "Timings",
    "__version__",
    "load",
]

_HOMES = {
    "BadInput": "errors",
    "Chat": "chat.chat",
    "LiteError": "errors",
    "Model": "chat.model",
    "Sampling": "chat.sampling",
    "StreamEvent": "chat.answer",
    "Timings": "chat.answer",
    "load": "chat.model",
}


def __getattr__(name: str) -> Any:
    """Import at first use: by then the commands are inside of `run`, which handles Ctrl-C."""
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def _version() -> str:
    """The version of the installed package; of a tree that is not installed it is not known."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mmgpt-lite")
    except PackageNotFoundError:
        return "0+unknown"
