"""A uvicorn server that stops gracefully.

Contract: at SIGTERM or Ctrl-C it takes no more requests, lets running answers finish for a while,
then ends them; answers that have not begun are refused.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket

import uvicorn
from starlette.applications import Starlette

from lite.errors import BadInput

BACKLOG = 2048
GRACE_SECONDS = 20
LAST_SECONDS = 5  # for what was cancelled to notice it


class Server(uvicorn.Server):
    """Serves one application; `grace` is the seconds that answers have to finish at the end."""

    def __init__(self, app: Starlette, grace: int = GRACE_SECONDS) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="critical",  # errors are logged where they are caught, in one line
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=grace,
            )
        )
        self._service = app.state.service

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._service.pool.stopping = True
        await super().shutdown(sockets)
        if self.server_state.tasks:
            await asyncio.wait({*self.server_state.tasks}, timeout=LAST_SECONDS)


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
        else:
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror
            message = f"The server cannot listen on {host}, port {port} ({why}); give others."
        raise BadInput(message) from None
