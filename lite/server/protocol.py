"""Requests of OpenAI's chat completions API, checked.

Contract: `parse_request` returns a request that the model can honour or raises `Refused` with a
sentence for the person. Fields that this model cannot honour are refused where they ask for
something; fields that do not change the answer (`user`, `metadata`, ...) are ignored, known or not.
Source: https://platform.openai.com/docs/api-reference/chat/create, plus the sampling fields that
other local servers have (`top_k`, `min_p`, `repetition_penalty`).
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lite.chat.chat import DEFAULT_MAX_TOKENS
from lite.server.errors import Refused

MAX_STOPS = 4
MAX_STOP_LENGTH = 1000


class Model(BaseModel):
    """JSON types as they are written: no number from a string, no NaN."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class TextPart(Model):
    type: Literal["text"]
    text: str


class ImageUrl(Model):
    url: str = Field(description="A data: URL with base64; http(s) only for hosts that are allowed")


class ImagePart(Model):
    type: Literal["image_url"]
    image_url: ImageUrl


class SystemMessage(Model):
    role: Literal["system", "developer"]
    content: str | list[TextPart]


class UserMessage(Model):
    role: Literal["user"]
    content: str | list[Annotated[TextPart | ImagePart, Field(discriminator="type")]]


class AssistantMessage(Model):
    role: Literal["assistant"]
    content: str | list[TextPart] | None = None
    tool_calls: Annotated[list[Any], Field(max_length=0)] | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage, Field(discriminator="role")]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Nothing = Annotated[list[Any], Field(max_length=0)]


class StreamOptions(Model):
    include_usage: bool | None = None


class ResponseFormat(Model):
    type: Literal["text"]


class ChatRequest(Model):
    """The body of POST /v1/chat/completions; null means the default."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(
        None, ge=1, description=f"Longest answer; {DEFAULT_MAX_TOKENS} by default"
    )
    max_completion_tokens: int | None = Field(None, ge=1, description="The same, newer name")
    temperature: float | None = Field(
        None, ge=0, le=100, description="0, the default here, takes the likeliest token"
    )
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=0, lt=2**31, description="0 keeps all")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    logprobs: bool | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None,
        description="Where the context is full: auto drops the oldest turns and says so in `note`; "
        "disabled, the default, refuses the prompt",
    )
    # What this model cannot do, in the values that ask for nothing.
    n: Literal[1] | None = None
    top_logprobs: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    tools: Nothing | None = None
    functions: Nothing | None = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None
    response_format: ResponseFormat | None = None
    modalities: Annotated[list[Literal["text"]], Field(max_length=1)] | None = None
    audio: None = None
    prediction: None = None
    web_search_options: None = None

    @property
    def limit(self) -> int:
        return self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields of `lite.chat.sampling.Sampling` that were given."""
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        return {name: value for name in names if (value := getattr(self, name)) is not None}


UNSUPPORTED = {
    "n": "Only one answer per request (n = 1) is given here; send the request again for another.",
    "top_logprobs": "Only the chosen token's logprob is given here; leave out top_logprobs.",
    "response_format": "Answers are free text here; leave out response_format.",
    **{
        name: f"{name} is not supported by this model; leave it out."
        for name in (
            *("presence_penalty", "frequency_penalty", "logit_bias", "tools", "functions"),
            *("tool_choice", "function_call", "modalities", "audio", "prediction"),
            *("web_search_options", "tool_calls"),
        )
    },
}


def parse_request(body: bytes) -> ChatRequest:
    """A checked request.

    Raises:
        Refused: the body is no JSON, or a field is wrong or cannot be honoured.
    """
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None


def _refusal(error: ValidationError) -> Refused:
    """The first thing wrong, in one sentence."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    if first["type"] == "json_invalid":
        return Refused(400, f"The body is not valid JSON ({first['msg'].rpartition(': ')[2]}).")
    names = [part for part in first["loc"] if part in UNSUPPORTED]
    if names and first["type"] != "missing":
        return Refused(400, UNSUPPORTED[str(names[0])], where, "unsupported_parameter")
    message = f"{where or 'The body'} is wrong: {first['msg'][:200]}."
    return Refused(400, message, where or None, "invalid_value")
