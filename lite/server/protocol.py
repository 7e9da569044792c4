"""Requests of OpenAI's chat completions API, checked.

Contract: `parse_request` returns a request that the model can honour or raises `Refused` with a
sentence for the person, in time and memory bounded by the body's length. A field that would change
the answer is honoured or refused by its name; what does not change it (`user`, `metadata`, ...) is
ignored, known or not.
Source: https://platform.openai.com/docs/api-reference/chat/create, plus what other local servers
have: sampling fields (`top_k`, `min_p`, `repetition_penalty`), -1 for no limit, `images` beside a
message's text, and `cache_salt`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
)

from lite.chat.chat import DEFAULT_MAX_TOKENS
from lite.server.errors import Refused

MAX_STOPS = 64
MAX_STOP_LENGTH = 1000
MAX_MESSAGES = 1 << 13  # whatever the server's settings say
MAX_PARTS = 256
# Braces, brackets and commas of a body: what makes reading JSON slow. No prompt that fits has more.
MAX_STRUCTURE = 50_000
NO_LIMIT = -1
UNLIMITED_TOKENS = 1 << 30


def _text_or(other: str) -> Discriminator:
    """Which branch of `str | other` a value belongs to, so that its errors are the ones told."""
    return Discriminator(lambda value: "<text>" if isinstance(value, str) else other)


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("Input should be at least 1, or -1 for no limit")
    return value


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
    image_url: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[ImageUrl, Tag("<object>")], _text_or("<object>")
    ]

    @property
    def url(self) -> str:
        return self.image_url if isinstance(self.image_url, str) else self.image_url.url


Parts = Annotated[
    list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(max_length=MAX_PARTS)
]
TextParts = Annotated[
    list[Annotated[TextPart, Field(discriminator="type")]], Field(max_length=MAX_PARTS)
]
Nothing = Annotated[list[Any], Field(max_length=0)]
Text = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[TextPart], Field(max_length=MAX_PARTS), Tag("<list>")],
    _text_or("<list>"),
]


class BaseMessage(Model):
    """What no message of this model can hold."""

    audio: None = None


class TextMessage(BaseMessage):
    images: Nothing | None = None


class SystemMessage(TextMessage):
    role: Literal["system", "developer"]
    content: Text


class UserMessage(BaseMessage):
    role: Literal["user"]
    content: Annotated[
        Annotated[str, Tag("<text>")] | Annotated[Parts, Tag("<list>")], _text_or("<list>")
    ]
    images: Annotated[list[str], Field(max_length=MAX_PARTS)] | None = Field(
        None, description="Further images as base64 or data: URLs, as Ollama's clients send them"
    )


class Function(Model):
    name: str
    arguments: str


class ToolCall(Model):
    function: Function


class AssistantMessage(TextMessage):
    role: Literal["assistant"]
    content: Text | None = None
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_PARTS)] | None = None
    function_call: Function | None = None


class ToolMessage(TextMessage):
    """What a tool returned; the model reads it as text."""

    role: Literal["tool", "function"]
    content: Text
    name: str | None = None


Message = Annotated[
    SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")
]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP_LENGTH)]
Stops = Annotated[list[Stop], Field(max_length=MAX_STOPS)]
Limit = Annotated[
    int, Field(ge=NO_LIMIT, json_schema_extra={"not": {"const": 0}}), AfterValidator(_not_zero)
]


class StreamOptions(Model):
    include_usage: bool | None = None


class ResponseFormat(Model):
    type: Literal["text"]


class ChatRequest(Model):
    """The body of POST /v1/chat/completions; null means the default."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False, extra="allow")

    messages: list[Message] = Field(min_length=1, max_length=MAX_MESSAGES)
    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Limit | None = Field(
        None, description=f"Longest answer; {DEFAULT_MAX_TOKENS} by default, -1 for no limit"
    )
    max_completion_tokens: Limit | None = Field(None, description="The same, newer name")
    temperature: float | None = Field(
        None, ge=0, le=100, description="0, the default here, takes the likeliest token"
    )
    top_p: float | None = Field(None, ge=0, le=1)
    top_k: int | None = Field(None, ge=NO_LIMIT, lt=2**31, description="0 and -1 keep all")
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, ge=0.01, le=100)
    repeat_penalty: float | None = Field(
        None, ge=0.01, le=100, description="The same, by the name that llama.cpp gives it"
    )
    seed: int | None = Field(None, ge=NO_LIMIT, lt=2**63, description="-1 draws one")
    stop: (
        Annotated[
            Annotated[Stop, Tag("<text>")] | Annotated[Stops, Tag("<list>")], _text_or("<list>")
        ]
        | None
    ) = None
    logprobs: bool | None = None
    truncation: Literal["auto", "disabled"] | None = Field(
        None,
        description="Where the context is full: auto drops the oldest turns and says so in `note`; "
        "disabled, the default, refuses the prompt",
    )
    cache_salt: Annotated[str, Field(max_length=1000)] | None = Field(
        None, description="Reuse what is cached only for requests of the same salt"
    )
    continue_final_message: bool | None = Field(
        None, description="Whether the answer goes on from a last message of the assistant's"
    )
    tools: list[Any] | None = Field(
        None, description="Taken and not called: the answer is words, and `note` says so"
    )
    # What this model cannot do, in the values that ask for nothing.
    n: Literal[1] | None = None
    top_logprobs: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
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
        limit = self.max_completion_tokens or self.max_tokens or DEFAULT_MAX_TOKENS
        return UNLIMITED_TOKENS if limit == NO_LIMIT else limit

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def sampling(self) -> dict[str, Any]:
        """The fields of `lite.chat.sampling.Sampling` that were given."""
        penalty = self.repetition_penalty
        given = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0 if self.top_k == NO_LIMIT else self.top_k,
            "min_p": self.min_p,
            "repetition_penalty": self.repeat_penalty if penalty is None else penalty,
            "seed": None if self.seed == NO_LIMIT else self.seed,
        }
        return {name: value for name, value in given.items() if value is not None}


UNSUPPORTED = {
    "n": "Only one answer per request (n = 1) is given here; send the request again for another.",
    "top_logprobs": "Only the chosen token's logprob is given here; leave out top_logprobs.",
    "response_format": "Answers are free text here; leave out response_format.",
    "images": "Only a user's message can hold images here; leave them out of the others.",
    **{
        name: f"{name} is not supported by this model; leave it out."
        for name in (
            *("presence_penalty", "frequency_penalty", "logit_bias", "functions"),
            *("tool_choice", "modalities", "audio", "prediction", "web_search_options"),
        )
    },
}
# Fields of other servers that change the answer there, and are not done here.
CHANGES_ANSWER = re.compile(
    r"grammar|guided_.*|structured_outputs|json_schema|regex|ebnf|choices?|format"
    r"|chat_template.*|template|system|prompt|suffix|echo|context|documents"
    r"|images?|image_url|files|videos?|input|instructions|options"
    r"|mirostat.*|typical_p|tfs_z|top_a|top_n_sigma|xtc_.*|dry_.*|dynatemp_.*|smoothing_.*|samplers"
    r"|.*_penalty|penalty_.*|min_tokens|min_length|max_length|n_predict|num_predict|ignore_eos"
    r"|bad_words.*|banned_.*|stop_token_ids|stop_regex|include_stop_str_in_output|best_of"
    r"|use_beam_search|num_beams|early_stopping|logits_processors?|lora.*|adapters?|control_vectors?"
)
NEUTRAL: tuple[Any, ...] = (None, False, 0, "", [], {})


def parse_request(body: bytes) -> ChatRequest:
    """A checked request.

    Raises:
        Refused: the body is no JSON, or a field is wrong or cannot be honoured.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")  # a byte order mark, as Windows' editors write it
    if sum(body.count(mark) for mark in (b"{", b"[", b",")) > MAX_STRUCTURE:
        raise Refused(
            400,
            f"The body has more than {MAX_STRUCTURE} values or punctuation marks of JSON; send a "
            f"shorter conversation.",
            code="invalid_value",
        )
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(error) from None
    for name, value in (request.model_extra or {}).items():
        if CHANGES_ANSWER.fullmatch(name) and value not in NEUTRAL:
            message = f"{name} is not supported by this model; leave it out."
            raise Refused(400, message, name, "unsupported_parameter")
    goes_on = isinstance(request.messages[-1], AssistantMessage)
    if request.continue_final_message not in (None, goes_on):
        message = (
            "continue_final_message is not supported by this model but where it is so by itself: a "
            "last message of the assistant's is gone on from, and no other."
        )
        raise Refused(400, message, "continue_final_message", "unsupported_parameter")
    penalties = {request.repetition_penalty, request.repeat_penalty} - {None}
    if len(penalties) > 1:
        message = "repetition_penalty and repeat_penalty are one setting; give one of them."
        raise Refused(400, message, "repeat_penalty", "invalid_value")
    return request


def _refusal(error: ValidationError) -> Refused:
    """The first thing wrong, in one sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    names = _client_names(first["loc"])
    where = ".".join(names)
    if first["type"] == "json_invalid":
        return Refused(400, f"The body is not valid JSON ({first['msg'].rpartition(': ')[2]}).")
    unsupported = [name for name in names if name in UNSUPPORTED]
    of_user = "user" in first["loc"][2:3] and unsupported == ["images"]
    if unsupported and first["type"] != "missing" and not of_user:
        return Refused(400, UNSUPPORTED[unsupported[0]], where, "unsupported_parameter")
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        field = context["discriminator"].strip("'")
        given, allowed = context["tag"][:40], context["expected_tags"].replace("'", "")
        message = f"{where}.{field} is {given!r}; give one of {allowed}."
        return Refused(400, message, f"{where}.{field}", "invalid_value")
    if first["type"] == "union_tag_not_found":
        field = first["ctx"]["discriminator"].strip("'")
        return Refused(400, f"{where} has no {field}.", f"{where}.{field}", "invalid_value")
    what = first["msg"].removeprefix("Value error, ")[:200]
    if first["type"] == "list_type" and first["loc"][-1] == "<list>":
        what = "Input should be a text or a list"
    return Refused(400, f"{where or 'The body'} is wrong: {what}.", where or None, "invalid_value")


def _client_names(location: tuple[int | str, ...]) -> list[str]:
    """A location in the client's own names: without the branches that a union chose."""
    names: list[str] = []
    for i, part in enumerate(location):
        branch = i > 1 and isinstance(location[i - 1], int) and location[i - 2] in UNIONS
        if not (branch or str(part).startswith("<")):
            names.append(str(part))
    return names


# Lists whose items are told apart by a field.
UNIONS = ("messages", "<list>")
