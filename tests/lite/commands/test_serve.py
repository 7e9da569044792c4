"""`lite-serve` as a person meets it: what it says, what it refuses, how it stops."""

import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.lite.damaged_bundles import claim, recorded
from tests.lite.server.conftest import LONG, Served, command, events, wait_until

posix_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")


def refused(*arguments: Any) -> str:
    """The one sentence on stderr of a command that ends with exit code 2."""
    line = [sys.executable, "-m", "lite.commands.serve", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert done.stderr.endswith(".\n")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_help_has_an_example() -> None:
    line = [sys.executable, "-m", "lite.commands.serve", "--help"]
    said = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    assert "Example: lite-serve -m bundle" in said
    assert "127.0.0.1" in said


def test_a_port_in_use_is_one_sentence(bundles: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused("-m", bundles(), "--port", port)
    assert f"Port {port}" in message
    assert "--port" in message


def test_a_host_that_is_not_here_is_one_sentence(bundles: Any) -> None:
    for host in ("192.0.2.1", "no such\nhost", "a..b", "x" * 300, "ü" * 300):
        message = refused("-m", bundles(), "--host", host, "--port", 0, "--allow-anyone")
        assert "cannot listen" in message
        assert len(message) < 200


def test_an_open_address_needs_a_key_or_a_word(bundles: Any) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        message = refused("-m", bundles(), "--host", host, "--port", 0)
        assert "--api-key" in message
        assert "--allow-anyone" in message
    with command("-m", bundles(), "--host", "0.0.0.0", "--allow-anyone") as running:
        url = running.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"Host": "anything.example"}
        assert httpx.get(f"{url}/v1/models", headers=headers).status_code == 200


def test_a_key_that_no_header_can_carry_is_one_sentence(bundles: Any) -> None:
    assert "API key" in refused("-m", bundles(), "--port", 0, "--api-key", "schlüssel")


def test_a_broken_vision_graph_is_refused_at_the_start(folder: Path) -> None:
    (folder / "vision.onnx").write_bytes((folder / "vision.onnx").read_bytes()[:-9])
    claim(folder, files=recorded(folder))
    assert "vision.onnx" in refused("-m", folder, "--port", 0)


def test_a_missing_bundle_is_one_sentence() -> None:
    assert "missing" in refused("-m", "missing", "--port", 0)


def test_the_key_may_come_from_the_environment(
    bundles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMGPT_LITE_API_KEY", "sesame")
    with command("-m", bundles()) as running:
        assert httpx.get(f"{running.url}/v1/models").status_code == 401
        headers = {"Authorization": "Bearer sesame"}
        assert httpx.get(f"{running.url}/v1/models", headers=headers).status_code == 200


def test_only_local_names_are_answered_by_default(bundles: Any) -> None:
    with command("-m", bundles()) as running:
        response = httpx.get(f"{running.url}/v1/models", headers={"Host": "evil.example"})
        assert response.status_code == 403


@posix_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_running_answer_finishes_when_the_server_stops(long_bundle: Path, number: int) -> None:
    with command("-m", long_bundle, "--parallel", "1", "--grace", "200") as running:
        server = Served(running.url, None, None)
        answers: list[httpx.Response] = []

        def ask(content: str) -> threading.Thread:
            body = {"messages": [{"role": "user", "content": content}], "max_tokens": 3000}
            thread = threading.Thread(
                target=lambda: answers.append(server.post({**body, "stream": content == LONG}))
            )
            thread.start()
            return thread

        threads = [ask(LONG)]
        wait_until(lambda: server.metric("active_slots") == 1)
        threads.append(ask("hello"))
        wait_until(lambda: server.metric("queue_depth") == 1)
        code, rest = running.stop(number)
        for thread in threads:
            thread.join()
    whole, waiting = sorted(answers, key=lambda answer: answer.status_code)
    assert events(whole)[-1]["timings"]["new_tokens"] == 3000
    assert waiting.status_code == 503
    assert waiting.json()["error"]["type"] == "server_error"
    assert code in (130, -signal.SIGTERM)
    assert rest.strip() in ("Stopped.", "")


@posix_signals
def test_an_answer_without_end_is_ended(long_bundle: Path) -> None:
    with command("-m", long_bundle, "--grace", "1") as running:
        body = {"messages": [{"role": "user", "content": LONG}], "max_tokens": 32_000}
        url = f"{running.url}/v1/chat/completions"
        with httpx.stream("POST", url, json={**body, "stream": True}, timeout=60) as response:
            lines = response.iter_lines()
            next(lines)
            code, rest = running.stop(signal.SIGINT)
            with pytest.raises(httpx.RemoteProtocolError):
                list(lines)
    assert code == 130
    assert rest.strip() == "Stopped."
