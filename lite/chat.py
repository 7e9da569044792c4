"""A conversation: text and images in, pieces of text out.

Contract: a chat knows text, images and turns; the decoder below it knows ids and arrays. `ask` is
the one generator behind the terminal, the server and the benchmarks. The history is always equal
to what was shown: a reader that stops early keeps what it got, a failed question leaves no trace.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lite.errors import BadInput
from lite.images import Picture, load_image
from lite.sampling import Sampler, Sampling, log_probability
from lite.template import Part, Template, join
from lite.tokenizer import TextStream
from lite.vision import VisualMemory

if TYPE_CHECKING:
    from lite.model import Model

ImageSource = Any  # whatever lite.images.load_image takes

DEFAULT_MAX_TOKENS = 512
# Share of the context that is free again after old turns were dropped to make room.
FREED = 4


@dataclass
class Timings:
    """What one answer cost so far; every piece of it carries the same object.

    Attributes:
        image_seconds: loading pictures and computing their visual memory.
        images_computed: pictures for which the vision graph ran; others came from the cache.
        prompt_tokens: length of the prompt.
        prefill_tokens: tokens of it that were not in the KV cache.
        prefill_seconds: running them.
        new_tokens: tokens generated.
        decode_seconds: generating all but the first, which the prefill gives.
        finish: `stop` (the model ended), `length` (limit reached), or empty while it goes on.
    """

    image_seconds: float = 0.0
    images_computed: int = 0
    prompt_tokens: int = 0
    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    new_tokens: int = 0
    decode_seconds: float = 0.0
    finish: str = ""

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed; 0 for an answer of one token."""
        steps = self.new_tokens - 1
        return steps / self.decode_seconds if steps > 0 and self.decode_seconds else 0.0


@dataclass(frozen=True)
class Piece:
    """A step of an answer.

    Attributes:
        text: what it adds; empty while a character or a possible end of turn is incomplete.
        token: its id, or None for a piece that is only a note or the last held-back text.
        logprob: natural log of the model's probability of the token.
        timings: of the answer so far.
        note: a sentence for the person, such as that old turns were dropped.
    """

    text: str
    token: int | None
    logprob: float
    timings: Timings
    note: str = ""


@dataclass
class Exchange:
    """One question and its answer.

    Attributes:
        question: as the person wrote it.
        images: visual memories shown before the question.
        names: what to call these images.
        answer: text as shown.
        answer_ids: the tokens of the answer that are part of the context.
    """

    question: str
    images: list[VisualMemory] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    answer: str = ""
    answer_ids: list[int] = field(default_factory=list)


class Chat:
    """One conversation with a model.

    Example:
        >>> chat = lite.load("bundle").chat()
        >>> for piece in chat.ask("How many dogs are there?", image="park.jpg"):
        ...     print(piece.text, end="")
    """

    def __init__(self, model: Model, template: Template, system: str | None = None) -> None:
        self._model = model
        self._template = template
        self.system = template.system if system is None else system
        self.exchanges: list[Exchange] = []

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
        """Write the conversation to one file, see `lite.session`."""
        from lite.session import save

        save(self, self._model, Path(path))

    def prompt(self) -> tuple[list[int], list[VisualMemory]]:
        """Ids of the whole conversation so far, and an image for each `<image>` in it."""
        ids: list[int] = []
        images: list[VisualMemory] = []
        for exchange in self.exchanges:
            parts: list[Part] = [] if ids else [self.system]
            parts += self._template.turn(exchange.question, len(exchange.images))
            ids += self._model.tokenizer.encode(join(parts), begin=not ids)
            ids += exchange.answer_ids
            images += exchange.images
        return ids, images

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
            yield from self._make_room(timings, min(max_tokens, self._model.context // FREED))
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

            memories.append(self._model.vision.encode(picture, computing))
        timings.image_seconds = time.perf_counter() - start
        return memories

    def _make_room(self, timings: Timings, wanted: int) -> Iterator[Piece]:
        """Drop the oldest turns until `wanted` tokens fit; their images move to the next turn."""
        dropped = 0
        while (free := self._model.context - len(self.prompt()[0])) < wanted:
            if len(self.exchanges) == 1:
                break
            oldest, heir = self.exchanges.pop(0), self.exchanges[0]
            if heir is not self.exchanges[-1]:  # a copy, in case the history is put back
                heir = self.exchanges[0] = replace(heir)
            heir.images = oldest.images + heir.images
            heir.names = oldest.names + heir.names
            dropped += 1
        if dropped and free > 0:
            turns = "The oldest turn was" if dropped == 1 else f"The {dropped} oldest turns were"
            note = f"{turns} dropped to make room in the context; the images stay."
            yield Piece("", None, 0.0, timings, note)

    def _check_length(self) -> None:
        length, context = len(self.prompt()[0]), self._model.context
        if length >= context:
            raise BadInput(
                f"The prompt has {length} tokens but the model's context holds {context}, the "
                f"answer included; shorten it."
            )

    def _generate(
        self,
        exchange: Exchange,
        max_tokens: int,
        sampler: Sampler,
        timings: Timings,
        progress: Callable[[str, int, int], None],
    ) -> Iterator[Piece]:
        tokenizer, decoder = self._model.tokenizer, self._model.decoder
        text = _AnswerText(exchange, TextStream(tokenizer), self._template.stops)
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
                    yield from self._make_room(timings, decoder.context // FREED)
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


class _AnswerText:
    """Grows an exchange's answer, holding back what may be the start of a new turn."""

    def __init__(self, exchange: Exchange, stream: TextStream, stops: tuple[str, ...]) -> None:
        self._exchange = exchange
        self._stream = stream
        self._stops = stops
        # An answer begins after the newline of its heading, which a stop text may begin with.
        self._held = "\n"
        self._decoded = len(self._held)
        self._lengths: list[int] = []  # characters decoded up to and including each token
        self.stopped = False

    def feed(self, token: int) -> str:
        """Take one token; returns the text that is now safe to show."""
        self._exchange.answer_ids.append(token)
        new = self._stream.feed(token)
        self._decoded += len(new)
        self._lengths.append(self._decoded)
        self._held += new
        for stop in self._stops:
            at = self._held.find(stop)
            if at >= 0:
                return self._stop(at)
        keep = max((_overlap(self._held, stop) for stop in self._stops), default=0)
        return self._show(len(self._held) - keep)

    def end(self) -> str:
        """Show what was held back, unless it opened a new turn."""
        if self.stopped:
            return ""
        self._held += self._stream.end()
        return self._show(len(self._held))

    def interrupt(self) -> None:
        """Forget what was held back: nobody has seen it."""
        if not self.stopped:
            self._forget_held()

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
        del self._exchange.answer_ids[kept:]

    def _show(self, count: int) -> str:
        shown, self._held = self._held[:count], self._held[count:]
        if not self._exchange.answer:
            shown = shown.lstrip()
        self._exchange.answer += shown
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)


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
