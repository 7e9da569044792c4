"""What cannot be honoured is refused in OpenAI's shape, with one sentence that says what to do."""

from typing import Any

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
        {"top_k": -1},
        {"min_p": -1},
        {"repetition_penalty": 0},
        {"seed": -1},
        {"seed": 1.5},
        {"max_tokens": 0},
        {"max_tokens": -(2**70)},
        {"max_completion_tokens": 0},
        {"stop": ""},
        {"stop": ["a", "b", "c", "d", "e"]},
        {"stream": "yes"},
        {"truncation": "some"},
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]},
        {"messages": [{"role": "user"}]},
        {"messages": [{"role": "user", "content": ""}]},
        {"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"messages": [{"role": "system", "content": "x"}]},
        {"messages": [{"role": "assistant", "content": "x"}, *HELLO]},
        {"messages": [*HELLO, {"role": "assistant", "content": "x"}]},
        {"messages": [*HELLO, {"role": "system", "content": "x"}, *HELLO]},
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
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"tool_choice": "required"},
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


def test_another_model_is_not_found(server: Served) -> None:
    response = server.post({"messages": HELLO, "model": "gpt-4o"})
    assert server.name in refused(response, 404, "model_not_found")
    refused(httpx.get(f"{server.url}/v1/models/gpt-4o"), 404, "model_not_found")


def test_other_paths_and_methods_have_the_same_shape(server: Served) -> None:
    refused(httpx.get(f"{server.url}/v1/nothing"), 404, None)
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
            assert "2048" in refused(response, 400, "context_length_exceeded")
