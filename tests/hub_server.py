"""A hub of our own on 127.0.0.1: as much of the Hugging Face API as its Python client needs.

`files` maps `org/name/path` to bytes. Every file is served as a hub file under
`/org/name/resolve/main/path` and as a plain download under `/org/name/path`, with ETag and Range.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class HubServer:
    """The running server: `url` for HF_ENDPOINT, what was asked, and the faults to play."""

    files: dict[str, bytes]
    url: str = ""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and Range header of each request, in order."""
    cut_once: dict[str, int] = field(default_factory=dict)
    """Path ending to the number of bytes after which its next GET is cut."""
    status: dict[str, int] = field(default_factory=dict)
    """Path ending to the status that is answered instead of the file to GET."""
    gated: set[str] = field(default_factory=set)
    """Repositories that ask for access."""
    validators: bool = True
    """Whether files carry an ETag."""

    content_type: str = "application/octet-stream"

    def python(self, home: Path, *arguments: str, **environment: str) -> str:
        """Standard output of a Python process that knows only this hub and keeps all in `home`.

        A process of its own, because huggingface_hub reads its settings once, when imported.
        """
        own = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "hf"),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        answer = subprocess.run(
            [sys.executable, *arguments],
            env={**clean, **own, **environment},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert answer.returncode == 0, answer.stderr
        assert "Traceback" not in answer.stderr
        return answer.stdout

    def gets(self, ending: str) -> list[str | None]:
        """The Range headers of the GET requests for a path."""
        return [r for method, path, r in self.requests if method == "GET" and path.endswith(ending)]


@contextmanager
def serve_hub(files: dict[str, bytes]) -> Iterator[HubServer]:
    """Serve `files` until the block ends."""
    hub = HubServer(files)
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, format: str, *args: object) -> None:
        """Tests read `requests` instead of a log."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._api(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._repository(match[1], match[2]):
                self._file(path, f"{match[1]}/{match[3]}")
        else:
            self._file(path, path[1:])

    def _api(self, repo: str, what: str | None, revision: str | None) -> None:
        if not self._repository(repo, revision or "main"):
            return
        names = [name for name in self.hub.files if name.startswith(repo + "/")]
        tree = [
            {
                "type": "file",
                "path": name[len(repo) + 1 :],
                "size": len(self.hub.files[name]),
                "oid": hashlib.sha1(self.hub.files[name]).hexdigest(),
            }
            for name in names
        ]
        info = {"id": repo, "modelId": repo, "sha": COMMIT, "private": False, "tags": []}
        body = json.dumps(tree if what == "tree" else info).encode()
        self._answer(200, {"Content-Type": "application/json"}, body)

    def _repository(self, repo: str, revision: str) -> bool:
        """Answers like the hub, and returns False, when there is nothing to be seen."""
        if not any(name.startswith(repo + "/") for name in self.hub.files):
            self._answer(401, {"X-Error-Code": "RepoNotFound"})
        elif repo in self.hub.gated:
            self._answer(403, {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", COMMIT):
            self._answer(404, {"X-Error-Code": "RevisionNotFound"})
        else:
            return True
        return False

    def _file(self, path: str, name: str) -> None:
        data = self.hub.files.get(name)
        if data is None:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            self._answer(404, missing if "/resolve/" in path else {})
            return
        for ending, status in self.hub.status.items():
            if self.command == "GET" and path.endswith(ending):
                self._answer(status)
                return
        etag = f'"{hashlib.sha256(data).hexdigest()}"'
        headers = {"X-Repo-Commit": COMMIT, "Content-Type": self.hub.content_type}
        if self.hub.validators:
            headers["ETag"] = etag
        start = 0
        if self.headers.get("If-Range", etag) == etag:
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            start = int(asked[1]) if asked else 0
        if start >= len(data) > 0:
            self._answer(416)
            return
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206 if start else 200, headers, data[start:], path)

    def _answer(
        self, status: int, headers: dict[str, str] | None = None, body: bytes = b"", path: str = ""
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for ending in [e for e in self.hub.cut_once if path and path.endswith(e)]:
            body = body[: self.hub.cut_once.pop(ending)]
        self.wfile.write(body)
