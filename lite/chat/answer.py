"""An answer as it grows: its text, its cost, and the events that a reader gets.

Contract: text is shown only when it is certain: a character cut between tokens waits for its rest,
and what may open a new turn waits until it does or does not. The exchange's `answer` and
`answer_ids` always stand for the same text, the one that was shown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lite.chat.conversation import Exchange
from lite.text.tokenizer import TextStream, Tokenizer

# Called with "image" or "prompt", the units of work done, and those to do.
Progress: TypeAlias = Callable[[str, int, int], None]


def no_progress(what: str, done: int, total: int) -> None:
    """Report nothing."""


@dataclass
class Timings:
    """What one answer cost so far; every event of it carries the same object.

    Attributes:
        image_seconds: loading pictures and computing their features.
        images_computed: pictures for which the vision graph ran; others came from the cache.
        prompt_tokens: length of the prompt.
        prefill_tokens: tokens of it that were not in the KV cache.
        prefill_seconds: running them.
        new_tokens: tokens generated.
        decode_seconds: generating all but the first, which the prefill gives.
        decode_runs: runs of the decoder for these; fewer where several tokens came from one.
        finish: `stop` (the model ended), `length` (limit reached), or empty while it goes on.
    """

    image_seconds: float = 0.0
    images_computed: int = 0
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    decode_runs: int = 0
    finish: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 for an answer of one token."""
        steps = self.new_tokens - 1
        return steps / self.decode_seconds if steps > 0 and self.decode_seconds else 0.0


@dataclass(frozen=True)
class StreamEvent:
    """A step of an answer.

    Attributes:
        text: what it adds; empty while a character or a possible end of turn is incomplete.
        token: its id, or None for an event that is only a note or the last held-back text.
        logprob: natural log of the model's probability of the token.
        timings: of the answer so far.
        note: a sentence for the person, such as that old turns were dropped.
    """

    text: str
    token: int | None
    logprob: float
    timings: Timings
    note: str = ""


class AnswerText:
    """Grows an exchange's answer, holding back what may be the start of a new turn or a stop."""

    def __init__(
        self,
        exchange: Exchange,
        tokenizer: Tokenizer,
        template_stops: tuple[str, ...],
        stops: tuple[str, ...] = (),
    ) -> None:
        """
        Args:
            exchange: to grow.
            tokenizer: of its tokens.
            template_stops: texts that open a new turn.
            stops: texts before which the reader wants the answer to end.
        """
        self._exchange = exchange
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer)
        self._template_stops = template_stops
        self._stops = stops
        # What the answer goes on from: it was given, and is neither held back nor cut.
        self._given = len(exchange.answer_ids)
        # An answer begins after the newline of its heading, which a stop text may begin with.
        self._held = "" if self._given else "\n"
        self._heading = self._decoded = len(self._held)
        self._lengths: list[int] = []  # characters decoded up to and including each token
        self.stopped = False

    def feed(self, token: int) -> str:
        """Take one token; returns the text that is now safe to show."""
        self._exchange.answer_ids.append(token)
        new = self._stream.feed(token)
        self._decoded += len(new)
        self._lengths.append(self._decoded)
        self._held += new
        at = self._end()
        if at >= 0:
            return self._stop(at)
        keep = max(
            (_overlap(self._held, s) for s in (*self._template_stops, *self._stops)), default=0
        )
        return self._show(len(self._held) - keep)

    def end(self) -> str:
        """Show what was held back, unless it opened a new turn."""
        if self.stopped:
            return ""
        self._held += self._stream.end()
        return self._show(len(self._held))

    def interrupt(self) -> None:
        """Forget what was held back, which was not shown."""
        if not self.stopped:
            self._forget_held()

    def _end(self) -> int:
        """Where in the held text the answer ends; -1 for nowhere."""
        heading = self._heading * int(self._decoded == len(self._held))  # not part of the answer
        ends = [self._held.find(turn) for turn in self._template_stops]
        ends += [self._held.find(stop, heading) for stop in self._stops]
        return min((end for end in ends if end >= 0), default=-1)

    def _stop(self, at: int) -> str:
        """End before the stop text: neither it nor its tokens stay in the conversation."""
        self.stopped = True
        shown = self._show(at)
        self._forget_held()
        return shown

    def _forget_held(self) -> None:
        shown = self._decoded - len(self._held)
        # Up to the token that completes the shown text: bytes of a cut character may follow it.
        kept = int(np.searchsorted(self._lengths, shown))
        kept += self._lengths[kept : kept + 1] == [shown]
        del self._exchange.answer_ids[self._given + kept :]
        # A stop may begin within a token: what was shown of it is encoded anew.
        rest = shown - (self._lengths[kept - 1] if kept else self._heading)
        if rest > 0 and (tail := self._exchange.answer[-rest:]):
            self._exchange.answer_ids += self._tokenizer.encode([tail], begin=False)

    def _show(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        if not self._exchange.answer:
            shown = shown.lstrip()
        self._exchange.answer += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)
