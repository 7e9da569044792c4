"""What a client is told when a request fails, in the shape of OpenAI's API.

Contract: one sentence, a type and a code; never a traceback, never a path of the server.
"""

from __future__ import annotations

import logging
import re

from pydantic import BaseModel
from starlette.responses import Response

from lite.errors import BadInput, LiteError, TooLong

log = logging.getLogger("lite.server")

SERVER = "server_error"
# The folders of an absolute path, of POSIX or Windows.
FOLDERS = re.compile(r"(?<![\w/:.])(?:[A-Za-z]:)?[/\\](?:[^/\\\n:;,'\"]+[/\\])*")
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


def refusal(error: Exception, context: int = 0) -> Refused:
    """What to tell the client about any error.

    Args:
        error: it.
        context: tokens that the model's context holds. Clients know a prompt that is too long by
            the words that OpenAI's server has for it.
    """
    if isinstance(error, Refused):
        return error
    if isinstance(error, TooLong):
        what = f"This model's maximum context length is {context} tokens: {_lower(str(error))}"
        return Refused(400, what, "messages", "context_length_exceeded")
    if isinstance(error, BadInput):
        return Refused(400, without_folders(str(error)), code="invalid_value")
    log.error("%s: %s", type(error).__name__, " ".join(str(error).split()))
    if isinstance(error, LiteError):
        return Refused(500, without_folders(str(error)))
    return Refused(500, "Something in the server went wrong; its log says what.")


def without_folders(text: str) -> str:
    """A sentence in which the server's files are called by their names alone."""
    return FOLDERS.sub("", text)


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
