"""What the server's tests share: real servers on 127.0.0.1, and images as clients send them."""

import base64
import io
import json
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import lite
from lite.server.app import create_app
from lite.server.http_server import Server, listen
from lite.server.settings import Settings
from tests.lite.conftest import with_context

TLS = ssl.create_default_context()  # once: for each request it would take longer than the answer
LONG = "tell me everything"  # what the long bundle answers without end


@dataclass
class Served:
    """A running server."""

    url: str
    model: Any
    app: Any

    @property
    def name(self) -> str:
        return self.model.bundle.folder.name

    def post(self, body: Any, **options: Any) -> httpx.Response:
        url = f"{self.url}/v1/chat/completions"
        return httpx.post(url, json=body, timeout=120, verify=TLS, **options)

    def ask(self, content: Any, **fields: Any) -> dict[str, Any]:
        """The answer to one question or, if that is a list of messages, to a conversation."""
        talk = isinstance(content, list) and "role" in content[0]
        messages = content if talk else [{"role": "user", "content": content}]
        response = self.post({"messages": messages, "max_tokens": 12, **fields})
        assert response.status_code == 200, response.text
        return response.json()

    def metric(self, name: str) -> float:
        """The value of a metric, named with its labels as in the text."""
        lines = httpx.get(f"{self.url}/metrics", verify=TLS).text.splitlines()
        found = [line for line in lines if line.startswith(f"mmgpt_lite_{name} ")]
        return float(found[0].split()[-1]) if found else 0.0


@pytest.fixture(scope="session")
def long_bundle(made_once: Callable[..., Path]) -> Path:
    """A bundle whose answers can take many seconds."""
    return made_once("long", partial(with_context, 1 << 15)) / "bundle"


@contextmanager
def serving(bundle: Path, **settings: Any) -> Iterator[Served]:
    """A server on a free port."""
    with listen("127.0.0.1", 0) as socket:
        model = lite.load(bundle, threads=1)
        app = create_app(model, Settings(**settings))
        server = Server(app, grace=1)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
        thread.start()
        yield Served(f"http://127.0.0.1:{socket.getsockname()[1]}", model, app)
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """`serve(bundle, **settings)`: a server that runs until the test ends."""
    with ExitStack() as stack:
        yield lambda bundle, **settings: stack.enter_context(serving(bundle, **settings))


@pytest.fixture
def server(serve: Callable[..., Served], bundles: Any) -> Served:
    """A server of the reference's model, in fp32.

    In int8 the roundings of several tokens in one run, which depend on times that are measured,
    may change what a random model says.
    """
    return serve(bundles("lora"))


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def data_url(data: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def shown(text: str, *images: np.ndarray) -> list[dict[str, Any]]:
    """The parts of a question with images."""
    urls = [data_url(png(image)) for image in images]
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [*parts, {"type": "text", "text": text}]


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream that is complete."""
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *data, end, rest = response.text.split("\n\n")
    assert (end, rest) == ("data: [DONE]", "")
    return [json.loads(line.removeprefix("data: ")) for line in data]


def text(chunks: list[dict[str, Any]]) -> str:
    """What a stream's events say."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas)


@dataclass
class Running:
    """`lite-serve` in a process of its own, and where it listens."""

    process: subprocess.Popen[str]
    url: str

    def stop(self, number: int) -> tuple[int, str]:
        """Send a signal; returns exit code and what was left on stderr."""
        self.process.send_signal(number)
        _, rest = self.process.communicate(timeout=60)
        return self.process.returncode, rest


@contextmanager
def command(*arguments: Any) -> Iterator[Running]:
    """Run `lite-serve` until the context ends."""
    line = [sys.executable, "-m", "lite.commands.serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            while "Serving on" not in (said := process.stderr.readline()):
                assert said, "lite-serve ended"
            yield Running(process, said.split()[2])
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
