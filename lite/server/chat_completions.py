"""POST /v1/chat/completions.

Contract: every request ends in one of: a whole answer, a complete stream, an error in OpenAI's
shape (in a stream that has begun, as its last event), or silence because the client has gone. Then
the answer stops after the token that is being computed.
"""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from lite.server.answer import AnswerJob
from lite.server.connection import BodyBudget, Connection, RequestBody, WriteTimeout
from lite.server.errors import Refused, refusal
from lite.server.metrics import Metrics
from lite.server.responses import ResponseBuilder
from lite.server.service import Service
from lite.server.settings import Settings
from lite.text.tokenizer import Tokenizer


class ChatCompletions:
    """The endpoint, as an ASGI application."""

    def __init__(
        self,
        service: Service,
        metrics: Metrics,
        name: str,
        tokenizer: Tokenizer,
        settings: Settings,
    ) -> None:
        """
        Args:
            service: that answers.
            metrics: to count in.
            name: the model's id.
            tokenizer: to spell tokens for `logprobs`.
            settings: limits of requests, and further names of the model.
        """
        self._service = service
        self._metrics = metrics
        self._name = name
        self._tokenizer = tokenizer
        self._settings = settings
        # All requests that have a place may be of the largest size, and no more beside them.
        self._budget = BodyBudget(settings.max_body * service.pool.capacity)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        settings = self._settings
        seconds = settings.body_seconds
        body = RequestBody(scope, receive, settings.max_body, seconds, self._budget)
        try:
            with body:
                self._service.pool.check_room()
                data = await body.read()
                # A place is taken only now: half a body must not keep others out.
                with self._service.pool.admit():
                    job = await self._service.parse(data, _bearer_key(scope))
                    del data
                    self.check_model(job.request.model)
                    await self._serve(job, Connection(scope, receive, send))
        except ClientDisconnect:
            return
        except Exception as error:
            with suppress(ClientDisconnect):
                await body.discard()
                await refusal(error, self._service.context).response()(scope, receive, send)

    async def _serve(self, job: AnswerJob, connection: Connection) -> None:
        async with anyio.create_task_group() as group:

            async def answer() -> None:
                await self._answer(job, connection)
                group.cancel_scope.cancel()

            group.start_soon(connection.wait_closed, group.cancel_scope)
            group.start_soon(answer)

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not this one; None stands for it."""
        aliases = self._settings.aliases
        if name not in (None, self._name, *aliases) and "*" not in aliases:
            message = f"There is no model {str(name)[:100]!r} here; ask for {self._name!r}."
            raise Refused(404, message, "model", "model_not_found")

    async def _answer(self, job: AnswerJob, connection: Connection) -> None:
        request = job.request
        responses = ResponseBuilder(self._name, self._tokenizer, bool(request.logprobs))
        start = time.perf_counter()
        try:
            events = []
            async with self._service.answer(job) as answer:
                self._metrics.first_token(time.perf_counter() - start)
                try:
                    if request.stream:
                        await connection.send_event(responses.start())
                    while event := await self._service.compute(answer.next_event):
                        events.append(event)
                        if request.stream and (chunk := responses.event(event)):
                            await connection.send_event(chunk)
                finally:
                    self._metrics.answered(answer, time.perf_counter() - start)
            # The slot is free and the answer remembered before the client knows that it is over:
            # the next turn may be here at once.
            if not request.stream:
                await connection.send(responses.whole(events, answer))
                return
            await connection.send_event(responses.end(answer))
            if request.stream_options and request.stream_options.include_usage:
                await connection.send_event(responses.usage(answer))
            await connection.send_end()
        except WriteTimeout:
            return  # the connection is closed without an end, as the answer has none
        except Exception as error:
            await connection.send_error(refusal(error, self._service.context))


def _bearer_key(scope: Scope) -> str:
    return Headers(scope=scope).get("authorization", "").partition(" ")[2].strip()
