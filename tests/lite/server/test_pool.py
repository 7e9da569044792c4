"""Many clients on few slots: waiting, being sent away, leaving early, and a server that stops."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import psutil
import pytest
from anyio import CancelScope

from lite import demo
from lite.runtime.decoder import PREFILL_CHUNK, Decoder
from lite.server.connection import Connection
from tests.lite.conftest import CAT, DOG
from tests.lite.server.conftest import LONG, Served, command, events, shown, text, wait_until

ENDLESS = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 30_000}


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


@contextmanager
def answering(server: Served, question: str = LONG, wait: bool = True) -> Iterator[BinaryIO]:
    """The stream of an answer without end, from its first event on; leaving the context hangs up.

    Without `wait`, from before its first event.
    """
    body = json.dumps({**ENDLESS, "messages": [user(question)], "stream": True}).encode()
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        with connection.makefile("rb") as lines:
            while wait and not next(lines).startswith(b"data: "):
                pass
            yield lines


@dataclass
class Watch:
    """How often the decoder graph ran, and how often it had when clients were seen to be gone."""

    runs: int = 0
    gone: list[int] = field(default_factory=list)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Everything runs as ever, and is watched."""
    watch = Watch()
    run, gone = Decoder._run, Connection.wait_closed

    def counted(self: Decoder, *arguments: Any) -> Any:
        watch.runs += 1
        return run(self, *arguments)

    async def noted(self: Connection, scope: CancelScope) -> None:
        with CancelScope() as own:
            await gone(self, own)
        watch.gone.append(watch.runs)
        scope.cancel()

    monkeypatch.setattr(Decoder, "_run", counted)
    monkeypatch.setattr(Connection, "wait_closed", noted)
    return watch


def test_a_client_that_leaves_frees_its_slot_within_a_token(
    serve: Any, long_bundle: Path, watch: Watch
) -> None:
    server = serve(long_bundle, parallel=1, queue=0)
    pool = server.app.state.service.pool
    with answering(server):
        assert pool.active == 1
    wait_until(lambda: pool.active == 0)
    assert watch.runs - watch.gone[0] <= 1
    done = watch.runs
    assert server.ask("hello", max_tokens=1)
    assert watch.runs == done + 1


def test_a_client_that_leaves_during_a_long_prompt_frees_its_slot(
    serve: Any, long_bundle: Path, watch: Watch
) -> None:
    server = serve(long_bundle, parallel=1)
    pool = server.app.state.service.pool
    question = "word " * 4000
    chunks = len(server.model.tokenize(question)) // PREFILL_CHUNK
    with answering(server, question, wait=False):
        wait_until(lambda: watch.runs > 3)
    wait_until(lambda: pool.present == 0)
    assert watch.runs - watch.gone[0] <= 1
    assert watch.runs < chunks / 2


def test_a_client_that_leaves_before_a_whole_answer_frees_its_slot(
    serve: Any, long_bundle: Path
) -> None:
    server = serve(long_bundle, parallel=1)
    pool = server.app.state.service.pool
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=ENDLESS, timeout=0.5)
    wait_until(lambda: pool.active == 0, 2)
    assert server.ask("hello", max_tokens=1)


def test_an_interrupted_answer_is_continued_where_it_was_left(
    serve: Any, long_bundle: Path
) -> None:
    server = serve(long_bundle, parallel=1)
    pool = server.app.state.service.pool
    said = ""
    with answering(server) as lines:
        while len(said) < 40:
            line = next(lines)
            if line.startswith(b"data: "):
                delta = json.loads(line.removeprefix(b"data: "))["choices"][0]["delta"]
                said += delta.get("content", "")
    wait_until(lambda: pool.active == 0)
    messages = [
        ENDLESS["messages"][0],
        {"role": "assistant", "content": said},
        {"role": "user", "content": "go on"},
    ]
    usage = server.ask(messages, max_tokens=2)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 40


def test_beyond_the_queue_clients_are_sent_away(serve: Any, long_bundle: Path) -> None:
    server = serve(long_bundle, parallel=1, queue=1)
    pool = server.app.state.service.pool
    hello = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    with ThreadPoolExecutor(1) as threads:
        with answering(server):
            waiting = threads.submit(server.post, hello)
            wait_until(lambda: pool.present == 2)
            assert server.metric("queue_depth") == 1
            assert server.metric("active_slots") == 1
            for body in (hello, {**hello, "user": "x" * (16 << 20)}):
                refused = server.post(body)
                assert refused.status_code == 429
                assert int(refused.headers["retry-after"]) > 0
                assert refused.json()["error"]["type"] == "rate_limit_error"
        assert waiting.result().status_code == 200
    # A client has its answer a moment before its place is free.
    wait_until(lambda: pool.present == pool.active == 0, 2)


def test_a_client_that_leaves_the_queue_leaves_its_place(serve: Any, long_bundle: Path) -> None:
    server = serve(long_bundle, parallel=1, queue=1)
    pool = server.app.state.service.pool
    with answering(server):
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/chat/completions", json=ENDLESS, timeout=0.3)
        wait_until(lambda: pool.present == 1, 2)


def test_answers_at_the_same_time_are_those_of_one_after_the_other(
    serve: Any, bundles: Any
) -> None:
    server = serve(bundles("lora"), parallel=3)
    questions = [*(shown("what is this?", image) for image in (DOG, CAT)), "hello", "why?"]
    alone = [server.ask(q)["choices"] for q in questions]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda q: server.ask(q)["choices"], questions * 5))
    assert together == alone * 5


def test_eight_clients_get_a_hundred_complete_answers(serve: Any, bundles: Any) -> None:
    server = serve(bundles("lora", "int8"), parallel=2, queue=8)
    crowd(server, clients=8, requests=100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_thirty_two_clients_leave_nothing_behind() -> None:
    with command("-m", demo.FOLDER, "--parallel", "4", "--queue", "16") as running:
        server = Served(running.url, None, None)
        memory = psutil.Process(running.process.pid).memory_info
        crowd(server, clients=32, requests=2000)  # until every buffer has been used
        before = memory().rss
        refused = crowd(server, clients=32, requests=2000)
        growth = memory().rss / before - 1
        print(f"\nRSS {before / 2**20:.1f} MiB, growth {growth:.2%}, sent away {refused} times")
        assert growth < 0.02
        assert server.metric("active_slots") == server.metric("queue_depth") == 0


def crowd(server: Served, clients: int, requests: int) -> int:
    """Let clients have talks of two turns; returns how often one was sent away.

    Two in three show an image, one in five streams.
    """
    refused = 0

    def complete(body: dict[str, Any]) -> dict[str, Any]:
        """The message of an answer that is complete."""
        nonlocal refused
        while (response := server.post(body)).status_code == 429:
            refused += 1
            time.sleep(0.02)
        assert response.status_code == 200, response.text
        if not body["stream"]:
            choice = response.json()["choices"][0]
            assert choice["finish_reason"] in ("stop", "length")
            return choice["message"]
        chunks = events(response)
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        return {"role": "assistant", "content": text(chunks)}

    def talk(number: int) -> None:
        images = [(DOG, CAT)[number % 2]] if number % 3 else []
        messages: list[Any] = [{"role": "user", "content": shown(f"what is {number}?", *images)}]
        for question in ("why?", "and now?"):
            body = {"messages": messages, "max_tokens": 8, "stream": number % 5 == 0}
            messages += [complete(body), {"role": "user", "content": question}]

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(talk, range(requests // 2)))
    return refused
