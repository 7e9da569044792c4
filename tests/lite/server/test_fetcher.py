"""Images by address: only from hosts that were allowed, only public, never further than asked."""

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from lite.server import fetcher
from lite.server.errors import Refused
from lite.server.fetcher import Fetcher, is_public
from tests.lite.conftest import DOG
from tests.lite.server.conftest import png

PUBLIC = "93.184.215.14"
PHOTO = png(DOG)


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Let every name have these addresses; returns the names that are looked up."""
    asked: list[str] = []

    def lookup(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


def refused(url: str, *hosts: str) -> str:
    with pytest.raises(Refused) as error:
        Fetcher(hosts).fetch(url)
    assert error.value.status == 400
    assert error.value.message.endswith(".")
    return error.value.message


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[Any]]]:
    """`host(answer)`: a web server that `photos.example` leads to; returns what it was asked."""
    servers: list[HTTPServer] = []
    asked: list[Any] = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> list[Any]:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append((self.path, self.headers["Host"]))
                answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        resolves_to(monkeypatch, PUBLIC)

        def connect(address: tuple[str, int], timeout: float) -> socket.socket:
            assert address == (PUBLIC, 80)
            connection = socket.socket()
            connection.settimeout(timeout)
            connection.connect(("127.0.0.1", server.server_port))
            return connection

        monkeypatch.setattr(socket, "create_connection", connect)
        return asked

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_nothing_is_fetched_unless_hosts_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolves_to(monkeypatch, PUBLIC)
    assert "data: URL" in refused("http://photos.example/a.png")
    assert asked == []


@pytest.mark.parametrize(
    "url",
    [
        "http://other.example/a.png",
        "http://photos.example.evil.example/a.png",
        "http://evil.example/photos.example",
        "http://photos.example@evil.example/a.png",
        "http://photos.example:22/a.png",
        "http://photos.example:x/a.png",
        "ftp://photos.example/a.png",
        "file:///etc/passwd",
        "gopher://photos.example/",
        "//photos.example/a.png",
        "http:///a.png",
        "http://[::1/a.png",
    ],
)
def test_other_addresses_are_not_even_looked_up(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    asked = resolves_to(monkeypatch, PUBLIC)
    refused(url, "photos.example")
    assert asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
        *("100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fd00::1"),
        *("::ffff:127.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "ff02::1"),
        *("fec0::1", "64:ff9b:1::7f00:1", "::ffff:0:127.0.0.1", "100::1", "2001:db8::1"),
        *("3fff::1", "5f00::1", "4000::1", "2606:4700::5efe:127.0.0.1"),
        *("2606:4700::200:5efe:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::1"),
    ],
)
def test_private_addresses_are_refused_after_resolution(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    resolves_to(monkeypatch, PUBLIC, address)
    monkeypatch.setattr(socket, "create_connection", None)
    assert "private" in refused("http://photos.example/a.png", "photos.example")
    assert not is_public(address)


def test_an_allowed_host_gives_its_image(host: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(PHOTO)))
        request.end_headers()
        request.wfile.write(PHOTO)

    asked = host(answer)
    assert Fetcher(("Photos.Example",)).fetch("http://photos.example/a.png?b=c#d") == PHOTO
    assert asked == [("/a.png?b=c", "photos.example")]


def test_a_redirect_is_not_followed(host: Any) -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(302)
        request.send_header("Location", "http://photos.example/b.png")
        request.end_headers()

    asked = host(answer)
    assert "redirect" in refused("http://photos.example/a.png", "photos.example")
    assert len(asked) == 1


def test_an_image_that_is_too_large_or_cut_short_is_refused(host: Any, monkeypatch: Any) -> None:
    length = len(PHOTO)

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(length))
        request.end_headers()
        request.wfile.write(PHOTO)

    host(answer)
    length += 1
    assert "cannot be fetched" in refused("http://photos.example/a.png", "photos.example")
    length -= 1
    monkeypatch.setattr(fetcher, "MAX_BYTES", 1 << 10)
    assert "larger" in refused("http://photos.example/a.png", "photos.example")


def test_a_host_that_drips_is_left(host: Any, monkeypatch: Any) -> None:
    left = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000000")
        request.end_headers()
        try:
            while not left.wait(0.05):
                request.wfile.write(b"x")
                request.wfile.flush()
        except OSError:
            left.set()

    monkeypatch.setattr(fetcher, "SECONDS", 0.5)
    host(answer)
    assert "cannot be fetched" in refused("http://photos.example/a.png", "photos.example")
    left.set()


def test_a_host_that_does_not_answer_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    resolves_to(monkeypatch, PUBLIC)

    def connect(*_: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", connect)
    assert "cannot be fetched" in refused("http://photos.example/a.png", "photos.example")
