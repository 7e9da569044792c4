"""A long mixed load: clients that ask, that leave early, and that attack.

`SOAK_SECONDS=600 python -m pytest -m slow tests/lite/server/test_http_server.py` runs ten minutes.
"""

import gzip
import json
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import psutil
import pytest

from lite import demo
from tests.lite.conftest import CAT, DOG
from tests.lite.server.conftest import Served, command, events, png, shown, text

SECONDS = float(os.environ.get("SOAK_SECONDS", "60"))
CLIENTS = 32
QUIET_SECONDS = 4  # until every deadline of the server has passed
CHAT = "/v1/chat/completions"
HEADERS = {"Content-Type": "application/json"}


class Soak:
    """Clients of one server, and what they saw."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        self.seen: Counter[str] = Counter()
        self.faults: list[str] = []
        self._lock = threading.Lock()
        self._attacks: list[Callable[[random.Random], None]] = [
            self.leave_early,
            self.half_header,
            self.half_body,
            self.garbage,
            self.many_messages,
            self.long_word,
            self.bad_bodies,
        ]

    def run(self, seconds: float) -> None:
        """Let all clients work for a time."""
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._client, args=(n, end)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 120)
            assert not thread.is_alive(), "a client waits for an answer that does not come"

    def _client(self, number: int, end: float) -> None:
        chance = random.Random(number)
        while time.monotonic() < end and not self.faults:
            work = chance.choice(self._attacks) if chance.random() < 0.4 else self.talk
            try:
                work(chance)
            except Exception as error:
                with self._lock:
                    self.faults.append(f"{work.__name__}: {type(error).__name__}: {error}")
            with self._lock:
                self.seen[work.__name__] += 1

    def talk(self, chance: random.Random) -> None:
        """Two turns; both must be answered whole."""
        images = [chance.choice((DOG, CAT))] if chance.random() < 0.6 else []
        messages: list[Any] = [
            {"role": "user", "content": shown(f"what is {chance.randrange(99)}?", *images)}
        ]
        for question in ("why?", ""):
            messages.append(self._answer(messages, stream=chance.random() < 0.3))
            messages.append({"role": "user", "content": question})

    def _answer(self, messages: list[Any], stream: bool) -> dict[str, Any]:
        body = {"messages": messages, "max_tokens": 8, "stream": stream}
        while (response := self.server.post(body)).status_code == 429:
            time.sleep(0.05)
        assert response.status_code == 200, response.text
        if not stream:
            choice = response.json()["choices"][0]
            assert choice["finish_reason"] in ("stop", "length")
            return choice["message"]
        chunks = events(response)
        assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
        return {"role": "assistant", "content": text(chunks)}

    def leave_early(self, chance: random.Random) -> None:
        body = json.dumps(
            {"messages": [{"role": "user", "content": "go on"}], "max_tokens": 200, "stream": True}
        ).encode()
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
        self._send(request, chance.random() * 0.3)

    def half_header(self, chance: random.Random) -> None:
        self._send(f"POST {CHAT} HTTP/1.1\r\nHost: loc".encode(), chance.random() * 3)

    def half_body(self, chance: random.Random) -> None:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        self._send(f"{head}Content-Length: 9999\r\n\r\n{{".encode(), chance.random() * 6)

    def garbage(self, chance: random.Random) -> None:
        self._send(chance.randbytes(chance.randrange(1, 4000)) + b"\r\n\r\n", 0.05)

    def many_messages(self, chance: random.Random) -> None:
        one = b'{"role":"user","content":""},'
        self._refused(b'{"messages":[' + one * 100_000 + one[:-1] + b"]}")

    def long_word(self, chance: random.Random) -> None:
        self._refused(b'{"messages":[{"role":"user","content":"' + b"x" * (2 << 20) + b'"}]}')

    def bad_bodies(self, chance: random.Random) -> None:
        self._refused(b'{"messages": ' + b"[" * 100_000)
        self._refused(gzip.compress(b"{}"), {**HEADERS, "Content-Encoding": "gzip"})
        cut = png(DOG)[:200]
        content = shown("what?", DOG)
        content[0]["image_url"]["url"] = f"data:image/png;base64,{cut.hex()}"
        self._refused(json.dumps({"messages": [{"role": "user", "content": content}]}).encode())

    def _refused(self, body: bytes, headers: dict[str, str] = HEADERS) -> None:
        response = httpx.post(self.server.url + CHAT, content=body, headers=headers, timeout=60)
        assert response.status_code in (400, 415, 429), response.text
        assert response.json()["error"]["message"].endswith(".")

    def _send(self, data: bytes, seconds: float) -> None:
        """Send bytes, wait, and hang up without reading."""
        with suppress(OSError), socket.create_connection(self.address, timeout=5) as connection:
            connection.sendall(data)
            time.sleep(seconds)


def descriptors(process: psutil.Process) -> int:
    return process.num_handles() if sys.platform == "win32" else process.num_fds()


@pytest.mark.slow
@pytest.mark.timeout(SECONDS * 2 + 600)
def test_a_mixed_load_loses_nothing_and_leaves_nothing_behind() -> None:
    options = ("--parallel", "4", "--queue", "16", "--header-seconds", "2", "--body-seconds", "3")
    with command("-m", demo.FOLDER, *options, "--max-connections", "100") as running:
        server = Served(running.url, None, None)
        process = psutil.Process(running.process.pid)
        soak = Soak(server)
        soak.run(SECONDS / 2)  # until every buffer has been used
        time.sleep(QUIET_SECONDS)
        before, open_before = process.memory_info().rss, descriptors(process)
        soak.run(SECONDS / 2)
        time.sleep(QUIET_SECONDS)
        after, open_after = process.memory_info().rss, descriptors(process)
        assert server.metric("active_slots") == server.metric("queue_depth") == 0
        _, log = running.stop(signal.SIGTERM)
    growth = after / before - 1
    print(f"\n{dict(soak.seen)}")
    print(f"RSS {before / 2**20:.0f} MiB, growth {growth:.1%}; open {open_before}, {open_after}")
    assert soak.faults == []
    assert "Traceback" not in log
    assert growth < 0.05
    assert open_after <= open_before + 4
