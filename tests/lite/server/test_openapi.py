"""Whatever is sent, the answer is one of those that the server's own OpenAPI document names."""

import json
import logging
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS

from tests.lite.conftest import DOG
from tests.lite.server.conftest import Served, data_url, png, serving, shown

CHAT = "/v1/chat/completions"
# What the document allows may still be a conversation that no template has a place for.
NOT_CHECKED = ("positive_data_acceptance",)
REJECTION = "negative_data_rejection"
CASES = 300
MANY_CASES = 10_000
RELAXED = {
    "deadline": None,
    "database": None,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(scope="module")
def server(small_bundle: Any) -> Iterator[Served]:
    with serving(small_bundle, max_body=1 << 20) as served:
        yield served


def fuzz(server: Served, cases: int) -> dict[int, int]:
    """Send `cases` requests, valid and not; returns how often each status was the answer."""
    document = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) == 5
    statuses: dict[int, int] = {}
    checks = {name: CHECKS.get_one(name) for name in CHECKS.get_all_names()}
    for name in NOT_CHECKED:
        del checks[name]
    # What is too large is refused before it is compared with the schema.
    of_size = {name: check for name, check in checks.items() if name != REJECTION}
    for operation in operations:
        # Most of the cases are for the one operation that takes a body.
        share = cases if operation.path == CHAT else max(cases // 50, 1)
        both = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

        @settings(max_examples=share, **RELAXED)
        @given(case=st.one_of(both))
        def send(case: Any) -> None:
            if case.operation.path == CHAT and isinstance(case.body, dict):
                case.body["max_tokens"] = case.body.get("max_tokens") or 4
            response = case.call()
            statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
            assert "Traceback" not in response.text
            large = response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            case.validate_response(response, checks=[*(of_size if large else checks).values()])

        send()
    return statuses


def test_the_document_holds(server: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "lite.server"):
        fuzz(server, CASES)
    assert caplog.records == []


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_document_holds_ten_thousand_times(
    server: Served, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "lite.server"):
        statuses = fuzz(server, MANY_CASES)
    print(f"\n{sum(statuses.values())} requests: {dict(sorted(statuses.items()))}")
    assert caplog.records == []
    assert statuses[200] > MANY_CASES / 100


@settings(max_examples=300, **RELAXED)
@given(data=st.data())
def test_damaged_requests_are_answered_with_a_sentence(server: Served, data: Any) -> None:
    good = json.dumps(
        {
            "messages": [{"role": "user", "content": shown("what?", DOG[:8, :8])}],
            "max_tokens": 2,
            "temperature": 0.5,
            "stop": ["a", "b"],
            "stream": data.draw(st.booleans()),
        }
    ).encode()
    body = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(body) - 1))
        end = data.draw(st.integers(at, min(at + 8, len(body))))
        body[at:end] = data.draw(st.binary(max_size=4))
    response = httpx.post(
        server.url + CHAT, content=bytes(body), headers={"Content-Type": "application/json"}
    )
    assert response.status_code in (200, 400), response.text
    if response.status_code == 400:
        assert response.json()["error"]["message"].endswith(".")


def test_damaged_images_are_answered_with_a_sentence(server: Served) -> None:
    whole = png(DOG[:8, :8])
    for length in range(1, len(whole) // 2, 7):
        question = shown("what?", DOG)
        question[0]["image_url"]["url"] = data_url(whole[:length])
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": 1}
        assert server.post(body).json()["error"]["code"] == "invalid_image"
