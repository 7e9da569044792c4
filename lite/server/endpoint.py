"""POST /v1/chat/completions.

Contract: every request ends in one of: a whole answer, a whole stream, an error in OpenAI's shape
(in a stream that has begun, as its last event), or silence because the client has gone. When it has
gone, the answer stops after the token that is being computed.
"""

from __future__ import annotations

import time
from contextlib import suppress

import anyio
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from lite.server.connection import Body, Client, Stalled
from lite.server.errors import Refused, refusal
from lite.server.metrics import Metrics
from lite.server.protocol import ChatRequest, read
from lite.server.responses import Reply
from lite.server.service import Service
from lite.text.tokenizer import Tokenizer


class ChatCompletions:
    """The endpoint, as an ASGI application."""

    def __init__(
        self, service: Service, metrics: Metrics, name: str, tokenizer: Tokenizer, max_body: int
    ) -> None:
        """
        Args:
            service: that answers.
            metrics: to count in.
            name: the model's id.
            tokenizer: to spell tokens for `logprobs`.
            max_body: bytes of a request.
        """
        self._service = service
        self._metrics = metrics
        self._name = name
        self._tokenizer = tokenizer
        self._max_body = max_body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(scope, receive, self._max_body)
        try:
            # Before the body is read: those that wait hold their images in memory.
            with self._service.pool.place():
                request = read(await body.read())
                self.check_model(request.model)
                await self._serve(request, Client(scope, receive, send))
        except ClientDisconnect:
            return
        except Refused as error:
            with suppress(ClientDisconnect):
                await body.discard()
                await error.response()(scope, receive, send)

    async def _serve(self, request: ChatRequest, client: Client) -> None:
        async with anyio.create_task_group() as group:

            async def answer() -> None:
                await self._answer(request, client)
                group.cancel_scope.cancel()

            group.start_soon(client.gone, group.cancel_scope)
            group.start_soon(answer)

    def check_model(self, name: str | None) -> None:
        """Refuse a model that is not this one; None stands for it."""
        if name not in (None, self._name):
            message = f"There is no model {str(name)[:100]!r} here; ask for {self._name!r}."
            raise Refused(404, message, "model", "model_not_found")

    async def _answer(self, request: ChatRequest, client: Client) -> None:
        reply = Reply(self._name, self._tokenizer, bool(request.logprobs))
        start = time.perf_counter()
        try:
            pieces = []
            async with self._service.answer(request) as answer:
                self._metrics.first_token(time.perf_counter() - start)
                try:
                    if request.stream:
                        await client.event(reply.start())
                    while piece := await self._service.compute(answer.step):
                        pieces.append(piece)
                        if request.stream and (chunk := reply.piece(piece)):
                            await client.event(chunk)
                finally:
                    self._metrics.answered(answer, time.perf_counter() - start)
            # The slot is free and the answer remembered before the client knows that it is over:
            # the next turn may be here at once.
            if not request.stream:
                await client.whole(reply.whole(pieces, answer))
                return
            await client.event(reply.end(answer))
            if request.stream_options and request.stream_options.include_usage:
                await client.event(reply.usage(answer))
            await client.end()
        except Stalled:
            return  # the connection is closed without an end, as the answer has none
        except Exception as error:
            await client.refuse(refusal(error))
