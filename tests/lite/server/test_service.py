"""Requests that would cost more than they may, and what one client learns of another."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from tests.lite.conftest import DOG
from tests.lite.server.conftest import Served, shown

CHAT = "/v1/chat/completions"
# Of the event loop standing still; /health computes nothing.
HEALTH_SECONDS = 0.2


@contextmanager
def watching_health(server: Served) -> Iterator[list[float]]:
    """How long /health takes, again and again while the context lasts."""
    seconds: list[float] = []
    connected, over = threading.Event(), threading.Event()

    def watch() -> None:
        with httpx.Client() as client:
            client.get(f"{server.url}/health")
            connected.set()
            while not seconds or not over.is_set():
                start = time.perf_counter()
                assert client.get(f"{server.url}/health").status_code == 200
                seconds.append(time.perf_counter() - start)
                time.sleep(0.01)

    thread = threading.Thread(target=watch)
    thread.start()
    assert connected.wait(30)
    yield seconds
    over.set()
    thread.join()


def refusal(server: Served, body: bytes, **options: Any) -> tuple[int, str, float]:
    """Status, message and seconds of a request that is refused."""
    start = time.perf_counter()
    headers = {"Content-Type": "application/json"}
    response = httpx.post(server.url + CHAT, content=body, headers=headers, timeout=60)
    error = response.json()["error"]
    return response.status_code, error["message"], time.perf_counter() - start


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": ""}] * 480_000,
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}] * 4000,
        [{"role": "user", "content": [{"type": "text", "text": ""}] * 100_000}],
        [[]] * 1_000_000,
        [0] * 2_000_000,
    ],
    ids=["14 MB of messages", "8,000 messages", "100,000 parts", "lists", "numbers"],
)
def test_very_many_messages_are_refused_and_nobody_waits(
    server: Served, messages: list[Any]
) -> None:
    body = json.dumps({"messages": messages}, separators=(",", ":")).encode()
    with watching_health(server) as health:
        status, _, seconds = refusal(server, body)
    assert status == 400
    assert seconds < 30
    assert np.median(health) < HEALTH_SECONDS


def test_as_many_messages_as_are_allowed_are_joined_at_once(server: Served) -> None:
    messages = [{"role": "user", "content": "7" * 900}] * 1024
    status, message, seconds = refusal(server, json.dumps({"messages": messages}).encode())
    assert (status, "maximum context length is 2048 tokens" in message) == (400, True)
    assert seconds < 10


@pytest.mark.parametrize("where", ["question", "answer", "system"])
@pytest.mark.parametrize("truncation", ["auto", "disabled"])
def test_megabytes_of_one_word_are_refused_by_their_length(
    server: Served, where: str, truncation: str
) -> None:
    word = "x" * (8 << 20)
    hello = {"role": "user", "content": "hello"}
    messages = {
        "question": [{"role": "user", "content": word}],
        "answer": [hello, {"role": "assistant", "content": word}, hello],
        "system": [{"role": "system", "content": word}, hello],
    }[where]
    body = json.dumps({"messages": messages, "truncation": truncation}).encode()
    with watching_health(server) as health:
        status, message, seconds = refusal(server, body)
    assert status == 400
    assert message.startswith("This model's maximum context length is 2048 tokens: the prompt has ")
    assert seconds < 5
    assert np.median(health) < HEALTH_SECONDS


def test_a_server_says_how_many_messages_it_takes(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), max_messages=3)
    hello = {"role": "user", "content": "hello"}
    assert server.ask([hello] * 3)
    response = server.post({"messages": [hello] * 4})
    assert response.json()["error"]["code"] == "too_many_messages"
    assert "4 messages but this server takes 3" in response.json()["error"]["message"]


def cached(server: Served, image: np.ndarray, **options: Any) -> tuple[int, int]:
    """Tokens and images that came from a cache, of one question about an image."""
    body = {"messages": [{"role": "user", "content": shown("what is this?", image)}]}
    response = server.post({**body, "max_tokens": 2, **options.pop("fields", {})}, **options)
    answer = response.json()
    details = answer["usage"]["prompt_tokens_details"]
    return details["cached_tokens"], answer["timings"]["images_cached"]


def test_callers_share_what_is_cached_unless_they_are_kept_apart(serve: Any, bundles: Any) -> None:
    one, other = ({"Authorization": f"Bearer {key}"} for key in ("one", "other"))
    shared = serve(bundles())
    cached(shared, DOG, headers=one)
    tokens, images = cached(shared, DOG, headers=other)
    assert tokens > 0
    assert images == 1
    apart = serve(bundles(), isolate=True)
    assert cached(apart, DOG, headers=one) == (0, 0)
    assert cached(apart, DOG, headers=other) == (0, 0)
    tokens, images = cached(apart, DOG, headers=other)
    assert tokens > 0
    assert images == 1


def test_a_salt_keeps_what_is_cached_apart(serve: Any, bundles: Any) -> None:
    server = serve(bundles())
    image = DOG[::-1]
    cached(server, image)
    assert cached(server, image, fields={"cache_salt": "a"}) == (0, 0)
    assert cached(server, image, fields={"cache_salt": "b"}) == (0, 0)
    assert cached(server, image, fields={"cache_salt": "a"})[1] == 1


def test_no_path_of_the_server_leaves_it() -> None:
    from lite.errors import BadInput, LiteError
    from lite.server.errors import refusal as told

    for error in (
        BadInput("/srv/models/secret/vision.onnx is not a readable ONNX graph; export it again."),
        LiteError("C:\\Users\\me\\bundle\\vision.onnx cannot be opened."),
        OSError(2, "No such file", "/etc/shadow"),
    ):
        message = told(error).message
        assert "/" not in message
        assert "\\" not in message
    assert "vision.onnx" in told(BadInput("/srv/a b/vision.onnx is broken.")).message
