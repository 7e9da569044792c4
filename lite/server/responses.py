"""Answers in the shape of OpenAI's API.

Contract: `Whole` is one JSON object, `Stream` the events of a stream; both count and time alike.
Beyond the API they have `note`, a sentence for the person, and `timings`.
"""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from lite.chat.answer import StreamEvent
from lite.server.answer import Answer
from lite.text.tokenizer import Tokenizer

Finish = Literal["stop", "length"]
EXPECTED = {"finish_reason", "logprobs", "refusal"}


class SparseModel(BaseModel):
    """Leaves out fields that are None, unless clients expect them."""

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = serialize(self)
        return {k: v for k, v in values.items() if v is not None or k in EXPECTED}


class TokenLogprob(BaseModel):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[Any] = []


class Logprobs(BaseModel):
    content: list[TokenLogprob]
    refusal: None = None


class CachedTokens(BaseModel):
    cached_tokens: int


class Usage(BaseModel):
    """`cached_tokens` are those of the prompt that did not have to be read again."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens


class Timings(BaseModel):
    """What the answer cost; see `lite.chat.answer.Timings`."""

    image_seconds: float
    images_computed: int
    images_cached: int
    prompt_tokens: int
    prefill_tokens: int
    prefill_seconds: float
    new_tokens: int
    decode_seconds: float
    tokens_per_second: float


class Delta(SparseModel):
    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    index: Literal[0] = 0
    delta: Delta
    logprobs: Logprobs | None = None
    finish_reason: Finish | None = None


class Chunk(SparseModel):
    """An event of a streamed answer."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    note: str | None = None
    timings: Timings | None = None


class AnswerMessage(BaseModel):
    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class Choice(BaseModel):
    index: Literal[0] = 0
    message: AnswerMessage
    logprobs: Logprobs | None = None
    finish_reason: Finish


class Completion(SparseModel):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    note: str | None = None
    timings: Timings


class ResponseBuilder:
    """Builds the responses to one request."""

    def __init__(self, model: str, tokenizer: Tokenizer, logprobs: bool) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }
        self._tokenizer = tokenizer
        self._logprobs = logprobs
        self._tokens: list[TokenLogprob] = []  # whose text is held back

    def start(self) -> Chunk:
        return self._chunk(Delta(role="assistant", content=""))

    def event(self, event: StreamEvent) -> Chunk | None:
        """A step of the answer; None if there is nothing to show yet."""
        tokens = self._shown(event)
        if not (event.text or event.note):
            return None
        delta = Delta(content=event.text) if event.text else Delta()
        return self._chunk(delta, tokens, note=event.note or None)

    def end(self, answer: Answer) -> Chunk:
        return self._chunk(Delta(), finish=_finish(answer), timings=_timings(answer))

    def usage(self, answer: Answer) -> Chunk:
        """The event that clients ask for by `stream_options.include_usage`."""
        return Chunk(**self._head, choices=[], usage=_usage(answer), timings=_timings(answer))

    def whole(self, events: list[StreamEvent], answer: Answer) -> Completion:
        tokens = [token for event in events for token in self._shown(event)]
        choice = Choice(
            message=AnswerMessage(content="".join(event.text for event in events)),
            logprobs=Logprobs(content=tokens) if self._logprobs else None,
            finish_reason=_finish(answer),
        )
        return Completion(
            **self._head,
            choices=[choice],
            usage=_usage(answer),
            note=" ".join(event.note for event in events if event.note) or None,
            timings=_timings(answer),
        )

    def _chunk(
        self,
        delta: Delta,
        tokens: list[TokenLogprob] | None = None,
        finish: Finish | None = None,
        **more: Any,
    ) -> Chunk:
        logprobs = Logprobs(content=tokens) if tokens else None
        choice = ChunkChoice(delta=delta, logprobs=logprobs, finish_reason=finish)
        return Chunk(**self._head, choices=[choice], **more)

    def _shown(self, event: StreamEvent) -> list[TokenLogprob]:
        """The tokens of the text that this event shows; those of a stop are never shown."""
        if not self._logprobs:
            return []
        if event.token is not None:
            data = self._tokenizer.token_bytes(event.token)
            text = data.decode(errors="replace")
            self._tokens.append(
                TokenLogprob(token=text, logprob=event.logprob, bytes=list(data), top_logprobs=[])
            )
        if not event.text:
            return []
        shown, self._tokens = self._tokens, []
        return shown


def _usage(answer: Answer) -> Usage:
    timings = answer.timings
    return Usage(
        prompt_tokens=timings.prompt_tokens,
        completion_tokens=timings.new_tokens,
        total_tokens=timings.prompt_tokens + timings.new_tokens,
        prompt_tokens_details=CachedTokens(
            cached_tokens=timings.prompt_tokens - timings.prefill_tokens
        ),
    )


def _timings(answer: Answer) -> Timings:
    names = set(Timings.model_fields) - {"images_cached"}
    values = {name: getattr(answer.timings, name) for name in names}
    return Timings(**values, images_cached=answer.images_cached)


def _finish(answer: Answer) -> Finish:
    return "length" if answer.timings.finish == "length" else "stop"
