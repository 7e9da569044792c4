"""What a client is told when a request fails, in the shape of OpenAI's API.

Contract: one sentence, a type and a code; never a traceback, never a path of the server.
"""

from __future__ import annotations

import logging

from pydantic import BaseModel
from starlette.responses import Response

from lite.errors import BadInput, LiteError, TooLong

log = logging.getLogger("lite.server")

SERVER = "server_error"
TYPES = {401: "authentication_error", 429: "rate_limit_error"}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error as OpenAI's clients know it."""

    error: ErrorDetail


class Refused(Exception):
    """A request that is not answered; `status` is the HTTP status."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}

    @property
    def body(self) -> ErrorBody:
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else SERVER)
        detail = ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
        return ErrorBody(error=detail)

    def response(self) -> Response:
        return Response(
            self.body.model_dump_json(), self.status, self.headers, media_type="application/json"
        )


def refusal(error: Exception) -> Refused:
    """What to tell the client about any error."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, TooLong):
        return Refused(400, str(error), "messages", "context_length_exceeded")
    if isinstance(error, BadInput):
        return Refused(400, str(error), code="invalid_value")
    log.error("%s: %s", type(error).__name__, error)
    if isinstance(error, LiteError):
        return Refused(500, str(error))
    return Refused(500, "Something in the server went wrong; its log says what.")
