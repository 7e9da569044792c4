"""A conversation: text and images in, pieces of text out.

Contract: a chat knows text, images and turns; the decoder below it knows ids and arrays. `ask` is
the one generator behind the terminal, the server and the benchmarks. The history is always equal
to what was shown: a reader that stops early keeps what it got, a failed question leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lite import session
from lite.answer import AnswerText, Piece, Timings
from lite.conversation import Conversation, Exchange
from lite.errors import BadInput
from lite.images import Picture, load_image
from lite.sampling import Sampler, Sampling, log_probability
from lite.tokenizer import TextStream
from lite.vision import VisualMemory

ImageSource = Any  # whatever lite.images.load_image takes

DEFAULT_MAX_TOKENS = 512
# An answer starts with this share of the context free (or its own limit, if that is less) ...
HEADROOM = 16
# ... and where that takes dropping turns, with this share more.
FREED = 4


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
        progress: Callable[[str, int, int], None] = lambda what, done, total: None,
        **sampling: Any,
    ) -> Iterator[Piece]:
        """Ask, and stream the answer.

        Args:
            text: the question.
            image: one image or several, shown before the question: paths, encoded bytes, PIL
                images, or uint8 arrays `[H, W, 3]`.
            max_tokens: longest answer.
            progress: called with ("image" or "prompt", done, total) during long work.
            sampling: fields of `lite.sampling.Sampling`; greedy by default.

        Raises:
            BadInput: an empty question, an unusable image or setting, or a prompt longer than the
                context. The conversation stays as it was.
        """
        if not text.strip():
            raise BadInput("The question is empty; write something to ask.")
        for part in (self.system, text):
            _check_unicode(part)
        if max_tokens < 1:
            raise BadInput(f"max_tokens is {max_tokens}; give a number from 1.")
        sampler = Sampler(_settings(sampling))
        return self._answer(text, as_list(image), max_tokens, sampler, progress)

    def save(self, path: str | Path) -> None:
        """Write the conversation to one file, see `lite.session`.

        Raises:
            BadInput: the file cannot be written.
        """
        session.save(self, Path(path))

    def _answer(
        self,
        text: str,
        sources: list[ImageSource],
        max_tokens: int,
        sampler: Sampler,
        progress: Callable[[str, int, int], None],
    ) -> Iterator[Piece]:
        timings = Timings()
        pictures = [load_image(source) for source in sources]
        exchange = Exchange(text, names=[picture.name for picture in pictures])
        for picture in pictures:
            for note in picture.notes:
                yield Piece("", None, 0.0, timings, note)
        exchange.images = self._look(pictures, timings, progress)
        before = [*self.exchanges]
        self.exchanges.append(exchange)
        try:
            yield from self._make_room(timings, min(max_tokens, self.engine.context // HEADROOM))
            self._check_length()
            yield from self._generate(exchange, max_tokens, sampler, timings, progress)
        except BaseException:  # Ctrl-C and a reader that stops early included
            if not exchange.answer_ids:
                self.exchanges[:] = before
            raise

    def _look(
        self,
        pictures: list[Picture],
        timings: Timings,
        progress: Callable[[str, int, int], None],
    ) -> list[VisualMemory]:
        start = time.perf_counter()
        memories = []
        for done, picture in enumerate(pictures):

            def computing(done: int = done) -> None:
                timings.images_computed += 1
                progress("image", done, len(pictures))

            memories.append(self.engine.vision.encode(picture, computing))
        timings.image_seconds = time.perf_counter() - start
        return memories

    def _make_room(self, timings: Timings, wanted: int) -> Iterator[Piece]:
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
            yield Piece("", None, 0.0, timings, note)

    def _check_length(self) -> None:
        room, context = self.room(), self.engine.context
        if room < 1:
            raise BadInput(
                f"The prompt has {context - room} tokens but the model's context holds {context}, "
                f"the answer included; shorten it."
            )

    def _generate(
        self,
        exchange: Exchange,
        max_tokens: int,
        sampler: Sampler,
        timings: Timings,
        progress: Callable[[str, int, int], None],
    ) -> Iterator[Piece]:
        tokenizer, decoder = self.engine.tokenizer, self.decoder
        text = AnswerText(exchange, TextStream(tokenizer), self.engine.template.stops)
        ids, images = self.prompt()
        timings.prompt_tokens = len(ids)
        start = time.perf_counter()
        report = lambda done, total: progress("prompt", done, total)  # noqa: E731
        logits = decoder.logits(ids, images, report)
        timings.prefill_seconds = time.perf_counter() - start
        timings.prefill_tokens = decoder.computed
        unspeakable = tokenizer.unspeakable(logits.size)
        start = time.perf_counter()
        try:
            while True:
                logits[unspeakable] = -np.inf
                token = sampler(logits, ids)
                if token == tokenizer.eos:
                    timings.finish = "stop"
                    break
                logprob = log_probability(logits, token)
                timings.new_tokens += 1
                timings.decode_seconds = time.perf_counter() - start
                shown = text.feed(token)
                ids.append(token)
                yield Piece(shown, token, logprob, timings)
                if text.stopped:
                    timings.finish = "stop"
                    break
                if timings.new_tokens == max_tokens:
                    timings.finish = "length"
                    break
                if len(ids) == decoder.context:
                    yield from self._make_room(timings, 1)
                    ids, images = self.prompt()
                    if len(ids) == decoder.context:
                        timings.finish = "length"
                        break
                logits = decoder.logits(ids, images)
        except BaseException:
            text.interrupt()
            raise
        rest = text.end()
        if rest or not timings.new_tokens:
            yield Piece(rest, None, 0.0, timings)


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
