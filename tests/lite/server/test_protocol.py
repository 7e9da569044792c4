"""What cannot be honoured is refused in OpenAI's shape, with one sentence that says what to do."""

import base64
import gzip
import json
import textwrap
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pytest

from tests.lite.conftest import DOG
from tests.lite.server.conftest import Served, data_url, png

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def server(bundles: Any) -> Any:
    """One server for all refusals: none of them may harm it."""
    from tests.lite.server.conftest import serving

    with serving(bundles(), max_images=2, max_body=1 << 20) as served:
        yield served
        assert served.ask("hello")["choices"]


def refused(response: httpx.Response, status: int, code: str | None) -> str:
    """The sentence of an error that has the right shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == code
    assert error["message"].endswith(".")
    assert "\n" not in error["message"]
    assert "Traceback" not in response.text
    return error["message"]


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": -0.1},
        {"temperature": "0"},
        {"temperature": True},
        {"top_p": 1.5},
        {"top_k": -2},
        {"min_p": -1},
        {"repetition_penalty": 0},
        {"seed": -2},
        {"seed": 1.5},
        {"max_tokens": 0},
        {"max_tokens": -(2**70)},
        {"max_completion_tokens": 0},
        {"stop": ""},
        {"stop": ["a"] * 65},
        {"stop": 5},
        {"repeat_penalty": 0},
        {"stream": "yes"},
        {"truncation": "some"},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [*HELLO, {"role": "assistant"}, {"role": "system", "content": "x"}]},
        {"messages": [{"content": "hello"}]},
        {"messages": ["hello"]},
    ],
    ids=str,
)
def test_wrong_values_are_named(server: Served, fields: dict[str, Any]) -> None:
    message = refused(server.post({"messages": HELLO, **fields}), 400, "invalid_value")
    assert next(iter(fields)) in message or "question is empty" in message


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2},
        {"top_logprobs": 3, "logprobs": True},
        {"tool_choice": "required"},
        {"tools": [{"type": "function"}], "tool_choice": {"type": "function"}},
        {"grammar": "root ::= x"},
        {"guided_json": {"type": "object"}},
        {"guided_regex": "a+"},
        {"structured_outputs": {"choice": ["a"]}},
        {"continue_final_message": True},
        {"min_tokens": 3},
        {"mirostat": 2},
        {"dry_multiplier": 0.8},
        {"length_penalty": 1.5},
        {"chat_template": "{{ messages }}"},
        {"options": {"temperature": 1}},
        {"images": ["QUJD"]},
        {"messages": [{"role": "system", "content": "x", "images": ["QUJD"]}, *HELLO]},
        {"messages": [{"role": "user", "content": "x", "audio": {"id": "1"}}]},
        {"functions": [{"name": "f"}]},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        {"modalities": ["text", "audio"]},
        {"audio": {"voice": "alloy", "format": "wav"}},
        {"logit_bias": {"5": 10}},
        {"presence_penalty": 0.5},
        {"frequency_penalty": -0.5},
    ],
    ids=str,
)
def test_what_the_model_cannot_do_is_said(server: Served, fields: dict[str, Any]) -> None:
    response = server.post({"messages": HELLO, **fields})
    refused(response, 400, "unsupported_parameter")


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": [{"type": "text", "text": "what?"}, *parts]}]


@pytest.mark.parametrize(
    ("messages", "where", "what"),
    [
        (user({"type": "text"}), "messages.0.content.1.text", "required"),
        (user({"type": "text", "text": 5}), "messages.0.content.1.text", "string"),
        (user({"type": "image_url"}), "messages.0.content.1.image_url", "required"),
        (user({"type": "image_url", "image_url": {}}), "messages.0.content.1.image_url.url", "req"),
        (user({"type": "input_audio"}), "messages.0.content.1.type", "text, image_url"),
        (user({"text": "x"}), "messages.0.content.1.type", "no type"),
        (user("x"), "messages.0.content.1", "object"),
        (user(*[{"type": "text", "text": ""}] * 300), "messages.0.content", "256 items"),
        ([{"role": "user", "content": 5}], "messages.0.content", "a text or a list"),
        ([{"role": "robot", "content": "x"}], "messages.0.role", "user, assistant"),
        ([{"content": "x"}], "messages.0.role", "no role"),
    ],
)
def test_a_mistake_is_reported_where_the_client_made_it(
    server: Served, messages: list[Any], where: str, what: str
) -> None:
    response = server.post({"messages": messages})
    message = refused(response, 400, "invalid_value")
    assert response.json()["error"]["param"] == where
    assert where.removesuffix(".role").removesuffix(".type") in message
    assert what in message


def content(server: Served, messages: list[Any], **fields: Any) -> str:
    return server.ask(messages, **fields)["choices"][0]["message"]["content"]


def prompt_tokens(server: Served, messages: list[Any]) -> int:
    return server.ask(messages)["usage"]["prompt_tokens"]


def test_images_are_taken_in_the_shapes_that_clients_send(server: Served) -> None:
    data = png(DOG[:17, :13])
    plain = base64.b64encode(data).decode()
    safe = base64.urlsafe_b64encode(data).decode()
    assert plain.endswith("=")
    expected = content(server, images(data_url(data))["messages"])
    assert expected != content(server, [{"role": "user", "content": "what?"}])
    for url in (
        f"data:image/png;charset=utf-8;base64,{plain}",
        f"data:image/png;base64;charset=utf-8,{plain}",
        f"DATA:;BASE64,{plain.rstrip('=')}",
        f"data:image/png;base64,{safe}",
        f"data:image/png;base64,{safe.rstrip('=')}",
        f"data:image/png;base64,{quote(plain)}",
        "data:image/png;base64," + "\n".join(textwrap.wrap(plain, 76)),
    ):
        assert content(server, images(url)["messages"]) == expected
    text = {"type": "text", "text": "what?"}
    part = {"type": "image_url", "image_url": data_url(data)}
    assert content(server, [{"role": "user", "content": [part, text]}]) == expected
    for image in (plain, data_url(data)):
        message = {"role": "user", "content": "what?", "images": [image]}
        assert content(server, [message]) == expected


def test_an_image_without_words_is_described_and_noted(server: Served) -> None:
    part = {"type": "image_url", "image_url": data_url(png(DOG))}
    answer = server.ask([{"role": "user", "content": [part]}])
    assert "Describe the image." in answer["note"]
    asked = [{"role": "user", "content": [part, {"type": "text", "text": "Describe the image."}]}]
    assert content(server, asked) == answer["choices"][0]["message"]["content"]


def test_the_image_that_is_wrong_is_named(server: Served) -> None:
    whole = png(DOG)
    good, cut = data_url(whole), data_url(whole[: len(whole) // 2])
    assert refused(server.post(images(good, cut)), 400, "invalid_image").startswith("Image 2 of 2 ")
    assert refused(server.post(images(cut)), 400, "invalid_image").startswith("The image ")
    broken = "data:image/png;base64,!!!"
    assert refused(server.post(images(broken, good)), 400, "invalid_image_url").startswith(
        "Image 1"
    )


def test_minus_one_is_no_limit(server: Served) -> None:
    free = {"max_tokens": 12, "top_k": -1, "seed": -1}
    assert content(server, HELLO, **free) == content(server, HELLO)
    full = server.ask(HELLO, max_tokens=-1)
    room = server.model.context - full["usage"]["prompt_tokens"]
    assert (
        full["choices"][0]["finish_reason"] == "stop"
        or full["usage"]["completion_tokens"] > room - 2
    )


def test_many_stops_and_other_names_of_settings_are_taken(server: Served) -> None:
    full = content(server, HELLO, max_tokens=40)
    stops = [f"never said {i}" for i in range(20)] + [full[10:13]]
    assert content(server, HELLO, max_tokens=40, stop=stops) == full[: full.index(full[10:13])]
    penalty = content(server, HELLO, max_tokens=40, repetition_penalty=1.7)
    assert content(server, HELLO, max_tokens=40, repeat_penalty=1.7) == penalty != full


def test_a_byte_order_mark_is_taken(server: Served) -> None:
    body = json.dumps({"messages": HELLO, "max_tokens": 12}).encode()
    response = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=b"\xef\xbb\xbf" + body,
        headers={"Content-Type": "application/json"},
    )
    assert response.json()["choices"][0]["message"]["content"] == content(server, HELLO)


def test_messages_in_other_orders_are_kept(server: Served) -> None:
    greeting = {"role": "assistant", "content": "Hello, I am here."}
    assert prompt_tokens(server, [greeting, *HELLO]) > prompt_tokens(server, HELLO) + 8
    late = [*HELLO, {"role": "system", "content": "Be brief."}]
    joined = [{"role": "user", "content": "hello\n\nBe brief."}]
    assert content(server, late) == content(server, joined)
    answered = [*HELLO, greeting]
    assert content(server, [*answered, {"role": "system", "content": "Be brief."}, *HELLO]) == (
        content(server, [*answered, {"role": "user", "content": "Be brief.\n\nhello"}])
    )


def test_an_answer_goes_on_from_what_the_assistant_began(server: Served) -> None:
    begun = {"role": "assistant", "content": "It is"}
    rest = content(server, [*HELLO, begun])
    reference = server.model.chat()
    events = reference.ask("hello", prefix="It is", max_tokens=12)
    assert rest == "".join(event.text for event in events)
    assert reference.exchanges[0].answer == f"It is{rest}"
    assert content(server, [*HELLO, begun], continue_final_message=True) == rest
    assert prompt_tokens(server, [*HELLO, begun]) > prompt_tokens(server, HELLO)
    response = server.post({"messages": [*HELLO, begun], "continue_final_message": False})
    refused(response, 400, "unsupported_parameter")


def test_tools_in_a_history_are_read_as_text(server: Served) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "sum", "arguments": "[1, 2]"}}
    messages = [
        *HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "3"},
    ]
    written = [
        *HELLO,
        {"role": "assistant", "content": "Call of sum with [1, 2]"},
        {"role": "user", "content": "Result: 3"},
    ]
    answer = server.ask(messages, tools=[{"type": "function", "function": {"name": "sum"}}])
    assert answer["choices"][0]["message"]["content"] == content(server, written)
    assert answer["note"] == "This model calls no tools; it answers in words."


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"messages": [{"role": "user", "content": "\xff"}]}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
        b'{"messages": [{"role": "user", "content": "hi"}], "temperature": NaN}',
        b'{"messages": [{"role": "user", "content": "hi"}], "top_p": Infinity}',
        b'{"messages": ' + b"[" * 100_000,
    ],
    ids=range(9),
)
def test_a_body_that_is_no_request_is_refused(server: Served, body: bytes) -> None:
    response = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=body,
        headers={"Content-Type": "application/json"},
    )
    assert response.status_code == 400
    refused(response, 400, response.json()["error"]["code"])


def test_only_json_is_taken(server: Served) -> None:
    """So that a page of another origin needs a permission that it does not get."""
    url = f"{server.url}/v1/chat/completions"
    response = httpx.post(url, content=b"{}", headers={"Content-Type": "text/plain"})
    assert "application/json" in refused(response, 415, None)
    assert "access-control-allow-origin" not in response.headers


def test_a_compressed_body_is_named(server: Served) -> None:
    response = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=gzip.compress(json.dumps({"messages": HELLO}).encode()),
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    )
    assert "gzip" in refused(response, 415, None)


def test_another_model_is_not_found(server: Served) -> None:
    response = server.post({"messages": HELLO, "model": "gpt-4o"})
    assert server.name in refused(response, 404, "model_not_found")
    refused(httpx.get(f"{server.url}/v1/models/gpt-4o"), 404, "model_not_found")


def test_other_paths_and_methods_have_the_same_shape(server: Served) -> None:
    message = refused(httpx.get(f"{server.url}/v1/nothing"), 404, None)
    assert "/v1/chat/completions" in message
    assert "/v1/models" in message
    response = httpx.get(f"{server.url}/v1/chat/completions")
    refused(response, 405, None)
    assert response.headers["allow"] == "POST"


def images(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return {
        "messages": [{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}],
        "max_tokens": 2,
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "photo.png",
        "file:///etc/passwd",
        "data:image/png;base64",
        "data:image/png;base64,",
        "data:image/png;base64,!!!",
        "data:image/png,abc",
        "http://example.org/photo.png",
        "https://127.0.0.1/photo.png",
    ],
)
def test_an_image_comes_as_a_data_url(server: Served, url: str) -> None:
    message = refused(server.post(images(url)), 400, "invalid_image_url")
    assert "data:" in message


def test_bytes_that_are_no_image_are_refused(server: Served) -> None:
    whole = png(DOG)
    bomb = png(np.zeros((1, 1, 3), np.uint8)).replace(
        b"\x00\x00\x00\x01\x00\x00\x00\x01", b"\x00\x01\x00\x00\x00\x01\x00\x00", 1
    )
    for data in (b"no image", whole[: len(whole) // 2], bomb, b"%PDF-1.7"):
        refused(server.post(images(data_url(data))), 400, "invalid_image")


def test_the_number_of_images_is_limited(server: Served) -> None:
    url = data_url(png(DOG))
    assert server.post(images(url, url)).status_code == 200
    assert "3 images" in refused(server.post(images(url, url, url)), 400, "too_many_images")


def test_the_size_of_a_request_is_limited(server: Served) -> None:
    body = {"messages": [{"role": "user", "content": "x" * (1 << 20)}]}
    assert "1 MiB" in refused(server.post(body), 413, None)

    def parts() -> Any:  # without a length that would tell
        yield b'{"messages": [{"role": "user", "content": "'
        for _ in range(1 << 6):
            yield b"x" * (1 << 15)

    response = httpx.post(
        f"{server.url}/v1/chat/completions",
        content=parts(),
        headers={"Content-Type": "application/json"},
    )
    refused(response, 413, None)


def test_a_prompt_longer_than_the_context_is_refused(server: Served) -> None:
    for truncation in ("auto", "disabled", None):
        body = {"messages": [{"role": "user", "content": "7" * 3000}], "truncation": truncation}
        for stream in (False, True):
            response = server.post({**body, "stream": stream})
            message = refused(response, 400, "context_length_exceeded")
            assert message.startswith("This model's maximum context length is 2048 tokens: the ")
