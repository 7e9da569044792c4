"""Who may come in, and what every response says."""

import socket
from typing import Any

import httpx
import pytest

from lite.errors import BadInput
from lite.server import app as application
from lite.server.settings import Settings
from tests.lite.server.conftest import Served

KEY = "sesame"
BODY = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}


def test_without_the_key_only_the_page_and_health_are_given(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), api_key=KEY)
    for given in (None, KEY, f"Basic {KEY}", "Bearer", f"Bearer {KEY}x", "Bearer \xff"):
        headers = {"Authorization": given.encode("latin-1")} if given else {}
        response = server.post(BODY, headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["error"]["code"] == "invalid_api_key"
        for path in ("/metrics", "/v1/models", "/v1/models/x", "/v1/nothing"):
            assert httpx.get(server.url + path, headers=headers).status_code == 401
    assert server.post(BODY, headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
    assert httpx.get(f"{server.url}/health").status_code == 200
    assert httpx.get(f"{server.url}/openapi.json").json()["components"]["securitySchemes"]


def test_a_foreign_name_of_this_machine_is_refused(serve: Any, bundles: Any) -> None:
    """A page that points its own name at 127.0.0.1 (DNS rebinding) gets nothing."""
    server = serve(bundles(), hosts=("127.0.0.1", "localhost", "::1"))
    for name, status in {
        "127.0.0.1": 200,
        "localhost:8080": 200,
        "[::1]:8080": 200,
        "LOCALHOST": 200,
        "evil.example": 403,
        "127.0.0.1.evil.example": 403,
        "": 403,
    }.items():
        assert httpx.get(f"{server.url}/v1/models", headers={"Host": name}).status_code == status


def test_without_settings_only_local_names_are_answered(serve: Any, bundles: Any) -> None:
    server = serve(bundles())
    for name, status in {"localhost:1": 200, "evil.example": 403}.items():
        assert httpx.get(f"{server.url}/v1/models", headers={"Host": name}).status_code == status
    for settings in ({"hosts": ()}, {"api_key": KEY}):
        url = f"{serve(bundles(), **settings).url}/health"
        assert httpx.get(url, headers={"Host": "evil.example"}).status_code == 200


@pytest.mark.parametrize("key", ["", "größe", " word", "a\nb", "a\x7f"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(BadInput, match=r"^The API key must be printable ASCII .*\.$"):
        Settings(api_key=key)


def test_two_lengths_of_one_body_are_refused(server: Served) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"
        )
        response = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert response.startswith(b"HTTP/1.1 400 ")
    assert response.count(b"HTTP/1.1 ") == 1


def test_pages_of_named_origins_may_use_the_server(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), origins=("https://page.example",), api_key=KEY)
    url = f"{server.url}/v1/chat/completions"
    for origin, allowed in (("https://page.example", True), ("https://evil.example", False)):
        ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        ask["Access-Control-Request-Headers"] = "authorization,content-type"
        preflight = httpx.options(url, headers=ask)
        assert (preflight.headers.get("access-control-allow-origin") == origin) == allowed
        given = {"Origin": origin, "Authorization": f"Bearer {KEY}"}
        response = httpx.post(url, json=BODY, headers=given)
        assert (response.headers.get("access-control-allow-origin") == origin) == allowed


def test_a_model_has_the_names_that_it_was_given(serve: Any, bundles: Any) -> None:
    server = serve(bundles(), aliases=("gpt-4o",))
    assert server.post({**BODY, "model": "gpt-4o"}).status_code == 200
    assert server.post({**BODY, "model": "gpt-5"}).status_code == 404
    assert serve(bundles(), aliases=("*",)).post({**BODY, "model": "x"}).status_code == 200


def test_every_response_carries_the_strict_headers(server: Served) -> None:
    for path in ("/health", "/v1/models", "/nothing", "/openapi.json", "/"):
        headers = httpx.get(server.url + path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_the_page_is_optional(serve: Any, bundles: Any, monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.setattr(application, "WEB", tmp_path / "missing")
    server = serve(bundles())
    assert httpx.get(f"{server.url}/").status_code == 404
    assert server.ask("hello")


@pytest.mark.parametrize("path", ["/../app.py", "/%2e%2e/app.py", "/..%2fapp.py", "//etc/passwd"])
def test_no_file_outside_the_page_is_given(server: Served, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 404


def test_metrics_count_what_happened(server: Served) -> None:
    answer = server.ask("hello")
    again = server.ask("hello")
    server.post({})
    usage = [a["usage"] for a in (answer, again)]
    path = "/v1/chat/completions"
    assert server.metric(f'requests_total{{path="{path}",status="200"}}') == 2
    assert server.metric(f'requests_total{{path="{path}",status="400"}}') == 1
    prompt, cached, generated = (
        server.metric(f'tokens_total{{kind="{kind}"}}')
        for kind in ("prompt", "cached", "generated")
    )
    assert prompt == sum(u["prompt_tokens"] for u in usage)
    assert cached == sum(u["prompt_tokens_details"]["cached_tokens"] for u in usage)
    assert generated == sum(u["completion_tokens"] for u in usage)
    assert server.metric("first_token_seconds_count") == 2
    assert server.metric("answer_seconds_count") == 2
    assert server.metric("active_slots") == server.metric("queue_depth") == 0
