"""Generating one answer: prefill, sampling, and what ends it.

Contract: the conversation's last exchange always equals what was streamed, wherever the reader
stops. Turns are dropped only to make room, and with a note.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lite.chat.answer import AnswerText, Progress, StreamEvent, Timings
from lite.chat.conversation import Conversation
from lite.chat.sampling import Sampler, log_probability
from lite.errors import TooLong
from lite.runtime.decoder import Decoder
from lite.runtime.prompt_lookup import PromptLookup

# Share of the context that is free when an answer starts, unless its own limit is less.
FREE_SHARE = 1 / 16
# Share that is freed beyond that where turns have to be dropped.
DROPPED_SHARE = 1 / 4


@dataclass(frozen=True)
class AnswerSettings:
    """How one answer is wanted; the fields are those of `Chat.ask`."""

    max_tokens: int
    stop: tuple[str, ...]
    drop_turns: bool
    prompt_lookup: bool
    prefix: str
    sampler: Sampler
    progress: Progress


def make_room(conversation: Conversation, wanted: int, timings: Timings) -> Iterator[StreamEvent]:
    """Where fewer than `wanted` tokens fit, drop the oldest turns.

    Drops until a quarter of the context is free on top, so that it happens once in a while
    and not at every turn: each time the rest has to be prefilled again.
    """
    if conversation.room() >= wanted:
        return
    dropped = 0
    enough = wanted + int(conversation.engine.context * DROPPED_SHARE)
    while len(conversation.exchanges) > 1 and conversation.room() < enough:
        conversation.drop_oldest()
        dropped += 1
    if dropped:
        turns = "The oldest turn was" if dropped == 1 else f"The {dropped} oldest turns were"
        note = f"{turns} dropped to make room in the context; the images stay."
        yield StreamEvent("", None, 0.0, timings, note)


def check_length(conversation: Conversation) -> None:
    """Raises `TooLong` where the prompt leaves no room for an answer."""
    room, context = conversation.room(), conversation.engine.context
    if room < 1:
        raise TooLong(
            f"The prompt has {context - room} tokens but the model's context holds {context}, "
            f"the answer included; shorten it."
        )


def generate(
    conversation: Conversation, decoder: Decoder, settings: AnswerSettings, timings: Timings
) -> Iterator[StreamEvent]:
    """The answer to the last question of a conversation, token by token.

    Args:
        conversation: its last exchange grows; turns may be dropped.
        decoder: that nobody else uses meanwhile.
        settings: of the answer.
        timings: of the answer, which the events carry.

    Raises:
        LiteError: the decoder failed.
    """
    engine, exchange = conversation.engine, conversation.exchanges[-1]
    tokenizer = engine.tokenizer
    text = AnswerText(exchange, tokenizer, engine.template.stops, settings.stop)
    ids, images = conversation.prompt()
    timings.prompt_tokens = len(ids)
    start = time.perf_counter()
    report = lambda done, total: settings.progress("prompt", done, total)  # noqa: E731
    repeatable = settings.sampler.repeatable
    logits = decoder.logits(ids, images, report, from_scratch=repeatable)
    timings.prefill_seconds = time.perf_counter() - start
    timings.prefill_tokens = decoder.computed
    suppressed = tokenizer.suppressed(logits.size)
    prompt_lookup = PromptLookup(
        decoder, engine.run_costs, settings.prompt_lookup and not repeatable
    )
    start = time.perf_counter()
    try:
        while True:
            logits[suppressed] = -np.inf
            token = settings.sampler(logits, ids)
            if token == tokenizer.eos:
                timings.finish = "stop"
                break
            logprob = log_probability(logits, token)
            timings.new_tokens += 1
            timings.decode_seconds = time.perf_counter() - start
            shown = text.feed(token)
            ids.append(token)
            yield StreamEvent(shown, token, logprob, timings)
            if text.stopped:
                timings.finish = "stop"
                break
            if timings.new_tokens >= settings.max_tokens:
                timings.finish = "length"
                break
            if len(ids) == decoder.context:
                if settings.drop_turns:
                    yield from make_room(conversation, 1, timings)
                ids, images = conversation.prompt()
                if len(ids) == decoder.context:
                    timings.finish = "length"
                    break
                prompt_lookup.restart()
            logits = prompt_lookup.logits(ids, images)
            timings.decode_runs = prompt_lookup.runs
    except BaseException:
        text.interrupt()
        raise
    rest = text.end()
    if rest or not timings.new_tokens:
        yield StreamEvent(rest, None, 0.0, timings)
