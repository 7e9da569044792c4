"""Connections that ask for nothing keep nobody else out."""

import logging
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest

from tests.lite.server.conftest import Served, command

HALF_HEADER = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
HALF_BODY = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b'Content-Length: 1000\r\n\r\n{"messages": ['
)


def connect(stack: ExitStack, server: Served, sent: bytes) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=20))
    connection.sendall(sent)
    return connection


def is_closed(connection: socket.socket) -> bool:
    """Whether the other end closes within the socket's timeout."""
    try:
        while connection.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False
    return True


def test_a_header_must_arrive_in_time(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), header_seconds=0.5)
    with ExitStack() as stack:
        for sent in (b"", b"GET", HALF_HEADER):
            start = time.monotonic()
            assert is_closed(connect(stack, server, sent))
            assert time.monotonic() - start > 0.3
        # The same on a connection that has been used, where a further request begins.
        used = connect(stack, server, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(1 << 16).startswith(b"HTTP/1.1 200")
        used.sendall(HALF_HEADER)
        assert is_closed(used)


def test_a_drip_of_header_bytes_does_not_move_the_deadline(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), header_seconds=0.6)
    with ExitStack() as stack:
        connection = connect(stack, server, HALF_HEADER)
        end = time.monotonic() + 10
        closed = False
        while not closed and time.monotonic() < end:
            try:
                connection.sendall(b"x")
                time.sleep(0.05)
            except OSError:  # a reset or a broken pipe
                closed = True
        assert closed


def test_beyond_the_bound_the_connection_that_waited_longest_is_closed(
    serve: Any, bundles: Any
) -> None:
    server = serve(bundles(), max_connections=8)
    with ExitStack() as stack:
        half = [connect(stack, server, HALF_HEADER) for _ in range(20)]
        assert httpx.get(f"{server.url}/health").status_code == 200
        assert is_closed(half[0])
        half[-1].settimeout(0.3)
        assert not is_closed(half[-1])


def test_half_bodies_take_no_place_in_the_queue(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), parallel=1, queue=0)
    with ExitStack() as stack:
        for _ in range(18):
            connect(stack, server, HALF_BODY)
        time.sleep(0.2)
        assert server.ask("hello")["choices"]


def test_a_body_must_arrive_in_time(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), body_seconds=0.5)
    with ExitStack() as stack:
        connection = connect(stack, server, HALF_BODY)
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 408 ")


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX limits")
def test_a_thousand_half_headers_neither_stop_the_server_nor_fill_its_log(bundles: Any) -> None:
    """With fewer files than attackers, as a service often has."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (900, 900))\n"
        "from lite.commands.serve import main; main()"
    )
    line = [sys.executable, "-c", code, "-m", str(bundles()), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process, ExitStack() as stack:
        stack.callback(process.kill)
        assert process.stderr
        while "Serving on" not in (said := process.stderr.readline()):
            assert said
        server = Served(said.split()[2], None, None)
        for _ in range(1100):
            connect(stack, server, HALF_HEADER)
        for _ in range(5):
            assert httpx.get(f"{server.url}/health", timeout=5).status_code == 200
        assert server.ask("hello")["choices"]
        process.terminate()
        log = process.stderr.read()
    assert "Traceback" not in log
    assert log.count("\n") < 10


def test_connections_that_were_closed_leave_nothing_behind(bundles: Any) -> None:
    with command("-m", bundles(), "--header-seconds", "0.3") as running, ExitStack() as stack:
        server = Served(running.url, None, None)
        assert server.ask("hello")["choices"]
        process = psutil.Process(running.process.pid)
        before = process.num_handles() if os.name == "nt" else process.num_fds()
        attackers = [connect(stack, server, HALF_HEADER) for _ in range(100)]
        assert all(map(is_closed, attackers))
        time.sleep(0.2)
        after = process.num_handles() if os.name == "nt" else process.num_fds()
    assert after <= before + 2


def test_faults_of_accepting_are_one_line(
    serve: Any, bundles: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from lite.server.http_server import Server

    app = serve(bundles()).app
    server = Server(app)
    with caplog.at_level(logging.ERROR, "lite.server"):
        for _ in range(1000):
            server._log_fault(None, {"message": "accept failed", "exception": OSError(24, "many")})  # type: ignore[arg-type]
    assert len(caplog.records) == 1
    assert caplog.records[0].exc_info is None
