"""A conversation: text and images in, pieces of text out.

Contract: a chat knows text, images and turns; the decoder below it knows ids and arrays. `ask` is
the one generator behind the terminal, the server and the benchmarks. The history is always equal
to what was shown: a reader that stops early keeps what it got, a failed question leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lite.chat import session
from lite.chat.answer import AnswerText, StreamEvent, Timings
from lite.chat.conversation import Conversation, Exchange
from lite.chat.sampling import Sampler, Sampling, log_probability
from lite.errors import BadInput, TooLong
from lite.image.preprocessing import Picture, load_image
from lite.runtime.prompt_lookup import PromptLookup
from lite.runtime.vision import ImageFeatures

ImageSource = Any  # whatever lite.image.preprocessing.load_image takes

DEFAULT_MAX_TOKENS = 512
# An answer starts with this share of the context free (or its own limit, if that is less) ...
HEADROOM = 16
# ... and where that takes dropping turns, with this share more.
FREED = 4


@dataclass(frozen=True)
class _Request:
    """How one answer is wanted; the fields are those of `Chat.ask`."""

    max_tokens: int
    stop: tuple[str, ...]
    drop_turns: bool
    prompt_lookup: bool
    sampler: Sampler
    progress: Callable[[str, int, int], None]


class Chat(Conversation):
    """A conversation that can be continued.

    Example:
        >>> chat = lite.load("bundle").chat()
        >>> for piece in chat.ask("How many dogs are there?", image="park.jpg"):
        ...     print(piece.text, end="")
    """

    def ask(
        self,
        text: str,
        image: ImageSource | Sequence[ImageSource] | None = None,
        *,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        stop: Sequence[str] = (),
        drop_turns: bool = True,
        prompt_lookup: bool = True,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        **sampling: Any,
    ) -> Iterator[StreamEvent]:
        """Ask, and stream the answer.

        Args:
            text: the question.
            image: one image or several, shown before the question: paths, encoded bytes, PIL
                images, uint8 arrays `[H, W, 3]`, or visual memories of `Model.look`.
            max_tokens: longest answer.
            stop: texts before which the answer ends; none of them is ever shown.
            drop_turns: where the context is full, drop the oldest turns; False ends the answer
                there, and refuses a prompt that does not fit.
            prompt_lookup: where the answer repeats the context, run several tokens at once; it
                changes only the speed, and is tried only where that pays
                (`lite.runtime.prompt_lookup`).
            progress: called with ("image" or "prompt", done, total) during long work.
            sampling: fields of `lite.chat.sampling.Sampling`; greedy by default.

        Raises:
            BadInput: an empty question, or an unusable image or setting.
            TooLong: the prompt is longer than the context. The conversation stays as it was.
        """
        if not text.strip():
            raise BadInput("The question is empty; write something to ask.")
        for part in (self.system, text):
            _check_unicode(part)
        if max_tokens < 1:
            raise BadInput(f"max_tokens is {max_tokens}; give a number from 1.")
        if isinstance(stop, str) or not all(stop):
            raise BadInput("stop must be a list of texts that are not empty.")
        sampler = Sampler(_settings(sampling))
        how = _Request(max_tokens, tuple(stop), drop_turns, prompt_lookup, sampler, progress)
        return self._answer(text, as_list(image), how)

    def prepare(
        self,
        image: ImageSource | Sequence[ImageSource] | None = None,
        *,
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
    ) -> None:
        """Do now what the next question will need whatever it asks, so that it is answered sooner.

        That is to open the decoder, to encode the images, and to read the conversation up to the
        question. Nothing is added to the conversation, and `ask` needs no preparation.

        Args:
            image: what `ask` will be given.
            progress: as for `ask`.

        Raises:
            BadInput: an unusable image, or a conversation that does not fit the context.
        """
        pictures = [s if isinstance(s, ImageFeatures) else load_image(s) for s in as_list(image)]
        decoder = self.decoder
        shown = self._look(pictures, Timings(), progress)
        prompts = []
        for question in ("A", "0"):  # what is the same for both is the same for all
            coming = Conversation(self.engine, self.system, decoder)
            coming.exchanges = [*self.exchanges, Exchange(question, shown)]
            prompts.append(coming.prompt())
        (ids, images), (others, _) = prompts
        known = next(i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b)
        decoder.logits(ids[:known], images, lambda done, total: progress("prompt", done, total))

    def save(self, path: str | Path, kv: bool = False) -> None:
        """Write the conversation to one file, see `lite.chat.session`.

        Args:
            path: the file; what it held is replaced, at once or not at all.
            kv: keep the KV cache too. The file is then larger (1 MiB a token for a 7B LLaMA), and
                the next turn after reopening computes only its own tokens; without it the
                conversation is read again once.

        Raises:
            BadInput: the file cannot be written.
        """
        session.save(self, Path(path), kv)

    def _answer(
        self, text: str, sources: list[ImageSource], how: _Request
    ) -> Iterator[StreamEvent]:
        timings = Timings()
        start = time.perf_counter()
        pictures = [s if isinstance(s, ImageFeatures) else load_image(s) for s in sources]
        timings.image_seconds = time.perf_counter() - start
        exchange = Exchange(text, names=[getattr(p, "name", "an image") for p in pictures])
        for picture in pictures:
            for note in getattr(picture, "notes", ()):
                yield StreamEvent("", None, 0.0, timings, note)
        exchange.images = self._look(pictures, timings, how.progress)
        before = [*self.exchanges]
        self.exchanges.append(exchange)
        try:
            if how.drop_turns:
                wanted = min(how.max_tokens, self.engine.context // HEADROOM)
                yield from self._make_room(timings, wanted)
            self._check_length()
            yield from self._generate(exchange, how, timings)
        except BaseException:  # Ctrl-C and a reader that stops early included
            if not exchange.answer_ids:
                self.exchanges[:] = before
            raise

    def _look(
        self,
        pictures: list[Picture | ImageFeatures],
        timings: Timings,
        progress: Callable[[str, int, int], None],
    ) -> list[ImageFeatures]:
        start = time.perf_counter()
        memories = []
        for done, picture in enumerate(pictures):
            if isinstance(picture, ImageFeatures):
                memories.append(picture)
                continue

            def computing(done: int = done) -> None:
                timings.images_computed += 1
                progress("image", done, len(pictures))

            memories.append(self.engine.vision.encode(picture, computing))
        timings.image_seconds += time.perf_counter() - start
        return memories

    def _make_room(self, timings: Timings, wanted: int) -> Iterator[StreamEvent]:
        """Where fewer than `wanted` tokens fit, drop the oldest turns.

        Drops until a quarter of the context is free on top, so that it happens once in a while
        and not at every turn: each time the rest has to be read again.
        """
        if self.room() >= wanted:
            return
        dropped = 0
        while len(self.exchanges) > 1 and self.room() < wanted + self.engine.context // FREED:
            self.drop_oldest()
            dropped += 1
        if dropped:
            turns = "The oldest turn was" if dropped == 1 else f"The {dropped} oldest turns were"
            note = f"{turns} dropped to make room in the context; the images stay."
            yield StreamEvent("", None, 0.0, timings, note)

    def _check_length(self) -> None:
        room, context = self.room(), self.engine.context
        if room < 1:
            raise TooLong(
                f"The prompt has {context - room} tokens but the model's context holds {context}, "
                f"the answer included; shorten it."
            )

    def _generate(
        self, exchange: Exchange, how: _Request, timings: Timings
    ) -> Iterator[StreamEvent]:
        tokenizer, decoder = self.engine.tokenizer, self.decoder
        text = AnswerText(exchange, tokenizer, self.engine.template.stops, how.stop)
        ids, images = self.prompt()
        timings.prompt_tokens = len(ids)
        start = time.perf_counter()
        report = lambda done, total: how.progress("prompt", done, total)  # noqa: E731
        logits = decoder.logits(ids, images, report)
        timings.prefill_seconds = time.perf_counter() - start
        timings.prefill_tokens = decoder.computed
        suppressed = tokenizer.suppressed(logits.size)
        ahead = PromptLookup(decoder, self.engine.run_costs, how.prompt_lookup)
        start = time.perf_counter()
        try:
            while True:
                logits[suppressed] = -np.inf
                token = how.sampler(logits, ids)
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
                if timings.new_tokens >= how.max_tokens:
                    timings.finish = "length"
                    break
                if len(ids) == decoder.context:
                    if how.drop_turns:
                        yield from self._make_room(timings, 1)
                    ids, images = self.prompt()
                    if len(ids) == decoder.context:
                        timings.finish = "length"
                        break
                    ahead.restart()
                logits = ahead.logits(ids, images)
                timings.decode_runs = ahead.runs
        except BaseException:
            text.interrupt()
            raise
        rest = text.end()
        if rest or not timings.new_tokens:
            yield StreamEvent(rest, None, 0.0, timings)


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput("The text holds half a character (not valid Unicode); retype it.") from None


def _settings(sampling: dict[str, Any]) -> Sampling:
    try:
        return Sampling(**sampling)
    except TypeError as error:
        raise BadInput(f"A sampling setting is unknown or of the wrong type ({error}).") from None


def as_list(image: ImageSource | Sequence[ImageSource] | None) -> list[ImageSource]:
    """None, one image or several as a list."""
    if image is None:
        return []
    return list(image) if isinstance(image, list | tuple) else [image]
