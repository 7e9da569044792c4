"""Reading and writing one HTTP request with limits of size and time.

Contract: a client that stalls cannot keep a slot; what is written after the client has gone goes
nowhere, without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import anyio
from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from lite.server.errors import Refused

GAP_SECONDS = 20  # without a byte of the body
DISCARD_SECONDS = 10
SEND_SECONDS = 60
RETRY_SECONDS = 2
STREAM_HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx would collect the events
}
# Characters that some clients take for the end of a line, as an event's data may not have; in JSON
# they can only be part of a string.
LINE_ENDS = {number: f"\\u{number:04x}" for number in (0x85, 0x2028, 0x2029)}


class BodyBudget:
    """Bytes that all requests together may hold before they have a place in the queue."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def take(self, count: int) -> None:
        """Count bytes in.

        Raises:
            Refused: there are too many.
        """
        if count > self._left:
            retry = {"Retry-After": str(RETRY_SECONDS)}
            message = "The server holds too many large requests; try again in a moment."
            raise Refused(429, message, code="queue_full", headers=retry)
        self._left -= count

    def give(self, count: int) -> None:
        """Count bytes out."""
        self._left += count


class RequestBody:
    """The body of a JSON request; as a context it is counted in a budget."""

    def __init__(
        self, scope: Scope, receive: Receive, limit: int, seconds: float, budget: BodyBudget
    ) -> None:
        """
        Args:
            scope, receive: of the request.
            limit: bytes.
            seconds: until all of it must be there.
            budget: of all requests.
        """
        self._headers = Headers(scope=scope)
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._budget = budget
        self._held = 0
        self._more = True

    def __enter__(self) -> RequestBody:
        return self

    def __exit__(self, *error: object) -> None:
        self._budget.give(self._held)
        self._held = 0

    async def read(self) -> bytes:
        """All of it.

        Raises:
            Refused: it is no JSON by its header, larger than the limit, or does not arrive.
            ClientDisconnect: the client has gone.
        """
        kind = self._headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":  # which also keeps pages of other origins out
            raise Refused(415, "The body must be JSON; send Content-Type: application/json.")
        encoding = self._headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            message = f"The body is encoded as {encoding[:40]}; send it without Content-Encoding."
            raise Refused(415, message, headers={"Accept-Encoding": "identity"})
        body = bytearray()
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limit:
            raise self._too_large()
        try:
            with anyio.fail_after(self._seconds):
                while self._more:
                    with anyio.fail_after(GAP_SECONDS):
                        part = await self._part()
                    self._budget.take(len(part))
                    self._held += len(part)
                    body += part
                    if len(body) > self._limit:
                        raise self._too_large()
        except TimeoutError:
            raise Refused(408, "The request did not arrive in time; send it again.") from None
        return bytes(body)

    async def discard(self) -> None:
        """Take the rest and forget it: a client that is still writing would not read an answer."""
        left = self._limit
        with anyio.move_on_after(DISCARD_SECONDS):
            while self._more and left > 0:
                left -= len(await self._part())

    async def _part(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self._more = message.get("more_body", False)
        return message.get("body", b"")

    def _too_large(self) -> Refused:
        size = f"{self._limit / 2**20:g} MiB"
        return Refused(413, f"The request is larger than {size}; send fewer or smaller images.")


class WriteTimeout(Exception):
    """The client has read nothing for too long."""


class Connection:
    """Writes a response, whole or as events."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.started = False

    async def wait_closed(self, scope: anyio.CancelScope) -> None:
        """Wait until the client has gone, then cancel."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def send(self, answer: BaseModel) -> None:
        await self._respond(Response(answer.model_dump_json(), media_type="application/json"))

    async def send_error(self, error: Refused) -> None:
        """An error, as the response or as the last event of one that has begun."""
        if self.started:
            await self._write(error.body.model_dump_json().encode(), True)
        else:
            await self._respond(error.response())

    async def send_event(self, data: BaseModel) -> None:
        """One server-sent event; the first one starts the response."""
        await self._write(data.model_dump_json().translate(LINE_ENDS).encode(), False)

    async def send_end(self) -> None:
        await self._write(b"[DONE]", True)

    async def _respond(self, response: Response) -> None:
        self.started = True
        with _in_time():
            await response(self._scope, self._receive, self._send)

    async def _write(self, data: bytes, last: bool) -> None:
        with _in_time():
            if not self.started:
                self.started = True
                headers = [(k.lower().encode(), v.encode()) for k, v in STREAM_HEADERS.items()]
                start = {"type": "http.response.start", "status": 200, "headers": headers}
                await self._send(start)
            body = b"data: " + data + b"\n\n"
            await self._send({"type": "http.response.body", "body": body, "more_body": not last})


@contextmanager
def _in_time() -> Iterator[None]:
    try:
        with anyio.fail_after(SEND_SECONDS):
            yield
    except TimeoutError:
        raise WriteTimeout from None
