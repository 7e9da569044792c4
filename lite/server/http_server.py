"""A uvicorn server that stops gracefully.

Contract: at SIGTERM or Ctrl-C it takes no more requests, lets running answers finish for a while,
then ends them; answers that have not begun are refused. What goes wrong between the system and the
event loop is one line in the log, and not at every turn.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import logging
import os
import socket
import time
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette

from lite.errors import BadInput
from lite.server.http_protocol import BoundedProtocol, possible_connections

log = logging.getLogger("lite.server")

# Connections that the loop accepts at once, before it looks at any of them.
BACKLOG = 128
LOG_SECONDS = 10  # between two lines about the same kind of fault
GRACE_SECONDS = 20
CANCEL_SECONDS = 5  # for cancelled requests to end
MAX_NAME = 60  # characters of a wrong --host that are shown
# glibc's malloc.h: the option's number, and the size from which a block is a mapping of its own.
M_MMAP_THRESHOLD = -3
OWN_MAPPING_BYTES = 64 << 10


class Server(uvicorn.Server):
    """Serves one application; `grace` is the seconds that answers have to finish at the end."""

    def __init__(self, app: Starlette, grace: int = GRACE_SECONDS) -> None:
        settings = app.state.settings
        protocol = partial(
            BoundedProtocol,
            header_seconds=settings.header_seconds,
            max_connections=possible_connections(settings.max_connections),
        )
        super().__init__(
            uvicorn.Config(
                app,
                http=cast("type[asyncio.Protocol]", protocol),
                backlog=BACKLOG,
                log_level="critical",  # errors are logged where they are caught, in one line
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=grace,
            )
        )
        self._service = app.state.service
        self._logged: dict[str, float] = {}
        keep_memory_flat()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._log_fault)
        await super().serve(sockets)

    def _log_fault(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """One line for what went wrong outside of any request, such as accepting a connection."""
        error = context.get("exception")
        what = f"{context['message']} ({error})" if error else str(context["message"])
        kind = f"{type(error).__name__} {context['message']}"
        if time.monotonic() - self._logged.get(kind, -LOG_SECONDS) >= LOG_SECONDS:
            self._logged[kind] = time.monotonic()
            log.error("%s", " ".join(what.split()))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.pool.stopping = True
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait({*self.server_state.tasks}, timeout=CANCEL_SECONDS)


def keep_memory_flat() -> None:
    """Give large blocks back to the system as soon as they are free, where the C library is glibc.

    By itself it raises the size from which it does so to that of the largest block ever freed.
    From then on every thread cuts the buffers of requests and runs from a heap of its own, where
    the small blocks between them keep the pages: memory grows for thousands of requests.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, OWN_MAPPING_BYTES)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        BadInput: the address is taken or is not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} on {host} is already in use; give another with --port."
            raise BadInput(message) from None
        number = error.errno or 0
        # The resolver's numbers are negative, and the socket's whole address follows its reason.
        why = os.strerror(number) if number > 0 else str(error.strerror).partition(" (while")[0]
    except (UnicodeError, TypeError):  # which of the two depends on Python's version
        why = "this can be no host's name"
    name = printable_name(host)
    raise BadInput(f"The server cannot listen on {name}, port {port} ({why}); give others.")


def printable_name(host: str) -> str:
    """A host as a sentence can hold it."""
    return " ".join(host.split())[:MAX_NAME]
