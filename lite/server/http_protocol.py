"""HTTP connections that cannot be held open for nothing.

Contract: a request's header must arrive in time, and where all connections are taken the one that
has waited longest for a request makes room for a new one. One with a request under way stays.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

# Files that a server needs beside its connections: the bundle, caches, fetched images, and
# connections that were accepted and not yet looked at.
RESERVED_FILES = 400
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nConnection: close\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """uvicorn's HTTP/1.1 with a deadline for headers and a bound on connections."""

    def __init__(self, *, header_seconds: float, max_connections: int, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self._header_seconds = header_seconds
        self._max_connections = max_connections
        self._deadline: asyncio.TimerHandle | None = None
        self._idle_since = 0.0

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._idle_since = self.loop.time()
        self._expect_header()
        if len(self.connections) > self._max_connections:
            self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.idle and self._deadline is None:
            self._expect_header()
        super().data_received(data)
        if not self.idle:
            self._stop_deadline()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _expect_header(self) -> None:
        self._deadline = self.loop.call_later(self._header_seconds, self._end_if_idle)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end_if_idle(self) -> None:
        self._deadline = None
        if self.idle:
            self.transport.abort()

    def _make_room(self) -> None:
        """End the connection that has waited longest for a request, which may be this one."""
        waiting = [c for c in self.connections if isinstance(c, BoundedProtocol) and c.idle]
        oldest = min(waiting, key=lambda connection: connection._idle_since)
        if oldest is self:
            self.transport.write(FULL)
            self.transport.close()
        else:
            oldest.transport.abort()
            self.connections.discard(oldest)


def possible_connections(wanted: int) -> int:
    """`wanted`, or as many as the system's limit of open files allows, which is raised for it."""
    if os.name != "posix":
        return wanted
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + RESERVED_FILES:
        infinite = hard == resource.RLIM_INFINITY
        soft = wanted + RESERVED_FILES if infinite else min(hard, wanted + RESERVED_FILES)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(min(wanted, soft - RESERVED_FILES), 1)
    return wanted
