"""Access control and the headers of every response.

Contract: wraps the whole application. Without the key, where there is one, only the page, its files
and /health are given out. No error of ours reaches a client as more than one sentence.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lite.server.errors import Refused, refusal
from lite.server.metrics import Metrics
from lite.server.settings import Settings

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
        "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
COUNTED = ("/health", "/metrics", "/openapi.json", "/v1/chat/completions", "/v1/models")
CLIENT_CLOSED = 499  # nginx's status for a client that left before its answer


class AccessMiddleware:
    """Middleware: host and key are checked, headers set, requests counted."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._key = settings.api_key.encode() if settings.api_key else None
        self._hosts = settings.allowed_hosts
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = CLIENT_CLOSED

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope["path"], Headers(scope=scope))
            await self._app(scope, receive, sending)
        except Exception as error:
            answer = refusal(error)
            if status == CLIENT_CLOSED:
                await answer.response()(scope, receive, sending)
        finally:
            path = scope["path"] if scope["path"] in COUNTED else "other"
            self._metrics.requests.labels(path, str(status)).inc()

    def _check(self, path: str, headers: Headers) -> None:
        if "transfer-encoding" in headers and "content-length" in headers:
            # Two lengths for one body: a proxy before us may believe the other one (RFC 9112, 6.1).
            message = "A request has either Content-Length or Transfer-Encoding; send one of them."
            raise Refused(400, message, headers={"Connection": "close"})
        if self._hosts and _name(headers.get("host", "")) not in self._hosts:
            raise Refused(
                403,
                "This server answers to its local name only; start it with --api-key, or name "
                "the host with --allow-host.",
                code="host_not_allowed",
            )
        if self._key is None or not (path.startswith("/v1/") or path == "/metrics"):
            return
        scheme, _, given = headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode(), self._key)
        if scheme.lower() != "bearer" or not right:
            raise Refused(
                401,
                "The API key is missing or wrong; send it as Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()
