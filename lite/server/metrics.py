"""What operators want to see, in Prometheus' format.

Contract: a registry of its own per server; labels take few values, none from clients.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from lite.server.answer import Answer
from lite.server.pool import Pool

# From a cached turn on a server to a long prompt on a small machine.
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, pool: Pool) -> None:
        self._registry = registry = CollectorRegistry()
        name = "mmgpt_lite_{}".format
        self.requests = Counter(
            name("requests"),
            "Requests by endpoint and status",
            ["path", "status"],
            registry=registry,
        )
        self._tokens = Counter(
            name("tokens"),
            "Tokens: of prompts, of these cached, and generated",
            ["kind"],
            registry=registry,
        )
        self._images = Counter(
            name("images"), "Images computed, or found in a cache", ["source"], registry=registry
        )
        self._first = Histogram(
            name("first_token_seconds"),
            "From the request to its first token",
            buckets=SECONDS,
            registry=registry,
        )
        self._whole = Histogram(
            name("answer_seconds"),
            "From the request to the end of its answer",
            buckets=SECONDS,
            registry=registry,
        )
        for what, about, value in (
            ("queue_depth", "Requests that wait", lambda: pool.present - pool.active),
            ("active_slots", "Answers being generated", lambda: pool.active),
            ("slots", "Answers that can be generated at a time", lambda: pool.parallel),
        ):
            Gauge(name(what), about, registry=registry).set_function(value)

    def first_token(self, seconds: float) -> None:
        self._first.observe(seconds)

    def answered(self, answer: Answer, seconds: float) -> None:
        """Count an answer that has ended, whichever way."""
        timings = answer.timings
        self._whole.observe(seconds)
        self._tokens.labels("prompt").inc(timings.prompt_tokens)
        self._tokens.labels("cached").inc(timings.prompt_tokens - timings.prefill_tokens)
        self._tokens.labels("generated").inc(timings.new_tokens)
        self._images.labels("computed").inc(timings.images_computed)
        self._images.labels("cached").inc(answer.images_cached)

    def text(self) -> bytes:
        return generate_latest(self._registry)
