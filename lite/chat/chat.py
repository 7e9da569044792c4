"""A chat: text and images in, a stream of events with text out.

Contract: a chat knows text, images and turns; the decoder below it knows ids and arrays. `ask` is
the one generator behind the terminal, the server and the benchmarks. The conversation always equals
what was streamed: a reader that stops early keeps what it got, and a failed question leaves no
trace.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lite.bundle.attend import PRECEDING
from lite.chat import session
from lite.chat.answer import Progress, StreamEvent, Timings, no_progress
from lite.chat.conversation import Conversation, Exchange
from lite.chat.engine import Engine
from lite.chat.generation import (
    FREE_SHARE,
    AnswerSettings,
    check_length,
    generate,
    make_room,
)
from lite.chat.images import ImageInput, ImageInputs, decoded, image_list
from lite.chat.sampling import Sampler, Sampling
from lite.errors import BadInput
from lite.image.loading import Picture
from lite.runtime.decoder import Decoder
from lite.runtime.vision import ImageFeatures

DEFAULT_MAX_TOKENS = 512
LAST_IMAGE_ONLY = (
    "Of several images before one question, this model's answer attends to the last one only; "
    "ask about each image in a question of its own."
)


class Chat:
    """A conversation with a model that can be continued.

    Attributes:
        engine: what it runs on.
        conversation: its turns.

    Example:
        >>> chat = lite.load("bundle").chat()
        >>> for event in chat.ask("How many dogs are there?", image="park.jpg"):
        ...     print(event.text, end="")
    """

    def __init__(
        self,
        engine: Engine,
        system: str | None = None,
        decoder: Decoder | None = None,
        conversation: Conversation | None = None,
    ) -> None:
        """
        Args:
            engine: of the model.
            system: the system line of a new conversation; None is the template's.
            decoder: whose KV cache it uses; None is the engine's.
            conversation: to go on with, instead of a new one.
        """
        self.engine = engine
        self._decoder = decoder
        self._starting = threading.Lock()
        # The answer under way, and the thread that asked for it.
        self._current: tuple[Generator[StreamEvent], int] | None = None
        self._told_of_images = False
        # What the files that this chat was read from or written to were like then.
        self._files: dict[Path, session.Stamp] = {}
        self.conversation = conversation or Conversation(engine, system)

    @property
    def decoder(self) -> Decoder:
        """The decoder that this chat was given, or else the engine's first."""
        return self._decoder or self.engine.decoder

    @contextmanager
    def lent_decoder(
        self, ids: Sequence[int], images: Sequence[ImageFeatures]
    ) -> Iterator[Decoder]:
        """A decoder for a sequence, which nobody else uses meanwhile."""
        if self._decoder is not None:
            yield self._decoder
            return
        with self.engine.decoders.lend(ids, images) as decoder:
            yield decoder

    @property
    def system(self) -> str:
        """The system line of the conversation."""
        return self.conversation.system

    @system.setter
    def system(self, text: str) -> None:
        self.conversation.system = text

    @property
    def exchanges(self) -> list[Exchange]:
        """The turns of the conversation, oldest first."""
        return self.conversation.exchanges

    @exchanges.setter
    def exchanges(self, exchanges: list[Exchange]) -> None:
        self.conversation.exchanges = exchanges

    def prompt(self) -> tuple[list[int], list[ImageFeatures]]:
        """Token ids of the conversation so far, and the images in it."""
        return self.conversation.prompt()

    def room(self) -> int:
        """Tokens that the context still holds."""
        return self.conversation.room()

    def ask(
        self,
        text: str,
        image: ImageInputs = None,
        *,
        sampling: Sampling | None = None,
        max_tokens: int | None = DEFAULT_MAX_TOKENS,
        stop: Sequence[str] = (),
        drop_turns: bool = True,
        prompt_lookup: bool = True,
        prefix: str = "",
        progress: Progress = no_progress,
        **sampling_fields: Any,
    ) -> Iterator[StreamEvent]:
        """Ask, and stream the answer.

        Args:
            text: the question.
            image: one image or several, shown before the question: paths, encoded bytes, PIL
                images, uint8 arrays `[H, W, 3]`, or features of `Model.encode_images`.
            sampling: how tokens are chosen; greedy by default. With a seed and a temperature, the
                same conversation, images and settings give the same answer again, on the same
                machine with the same number of threads: the prompt is then prefilled from its
                start, whatever the KV cache holds.
            max_tokens: longest answer; None ends it only where the context does.
            stop: texts before which the answer ends; none of them is ever shown.
            drop_turns: where the context is full, drop the oldest turns; False ends the answer
                there, and refuses a prompt that does not fit.
            prompt_lookup: where the answer repeats the context, run several tokens at once; it
                changes only the speed, and is tried only where that pays
                (`lite.runtime.prompt_lookup`).
            prefix: what the answer goes on from; it is a part of the answer in the conversation,
                and not of the stream.
            progress: called with ("image" or "prompt", done, total) during long work.
            sampling_fields: fields of `Sampling` by name, such as `temperature=0.7`, which
                override those of `sampling`.

        Raises:
            BadInput: an empty question, or an unusable image or setting.
            TooLong: the prompt is longer than the context. The conversation stays as it was.
        """
        if not isinstance(text, str):
            raise BadInput(f"The question is a {type(text).__name__}; give a text.")
        if not text.strip():
            raise BadInput("The question is empty; write something to ask.")
        for part in (self.system, text, prefix):
            _check_unicode(part)
        if max_tokens is None:
            max_tokens = self.engine.context
        if not isinstance(max_tokens, int | np.integer) or max_tokens < 1:
            raise BadInput(f"max_tokens is {max_tokens}; give a whole number from 1, or None.")
        if not isinstance(stop, list | tuple) or not all(isinstance(s, str) and s for s in stop):
            raise BadInput("stop must be a list of texts that are not empty.")
        sampler = Sampler((sampling or Sampling()).changed(sampling_fields))
        settings = AnswerSettings(
            max_tokens, tuple(stop), drop_turns, prompt_lookup, prefix, sampler, progress
        )
        return self._one_at_a_time(self._answer(text, image_list(image), settings))

    def prepare(
        self,
        image: ImageInputs = None,
        *,
        progress: Progress = no_progress,
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
        features = self._encode_images(decoded(image_list(image)), Timings(), progress)
        prompts = []
        for question in ("A", "0"):  # what is the same for both is the same for all
            coming = Conversation(self.engine, self.system)
            coming.exchanges = [*self.exchanges, Exchange(question, features)]
            prompts.append(coming.prompt())
        (ids, images), (others, _) = prompts
        known = next(i for i, (a, b) in enumerate(zip(ids, others, strict=False)) if a != b)
        with self.lent_decoder(ids[:known], images) as decoder:
            decoder.logits(ids[:known], images, lambda done, total: progress("prompt", done, total))

    def save(self, path: str | Path, kv: bool = False) -> None:
        """Write the conversation to one file, see `lite.chat.session`.

        Args:
            path: the file; what it held is replaced, at once or not at all.
            kv: keep the KV cache too. The file is then larger (1 MiB a token for a 7B LLaMA), and
                the next turn after reopening computes only its own tokens; without it the
                conversation is prefilled again once.

        Raises:
            BadInput: the file cannot be written, or another chat wrote it since this one did.
        """
        path = Path(path)
        known = self._files.get(path.absolute())
        if known is not None and session.stamp(path) not in (known, None):
            raise BadInput(
                f"The session {path} was written by another chat since this one used it; save "
                f"this conversation under another name."
            )
        session.save(self, path, kv)
        self._remember(path)

    def restore(self, path: str | Path) -> None:
        """Replace the conversation by what `save` wrote for the same model.

        Raises:
            BadInput: see `lite.chat.session.load`. The conversation stays as it was.
        """
        path = Path(path)
        before = session.stamp(path)
        session.load(self, path)
        self._remember(path, before)

    def _remember(self, path: Path, stamp: session.Stamp | None = None) -> None:
        if found := stamp or session.stamp(path):
            self._files[path.absolute()] = found

    def _one_at_a_time(self, answer: Generator[StreamEvent]) -> Iterator[StreamEvent]:
        """The events of an answer; one that was left unfinished before ends here."""
        with self._starting:
            thread = threading.get_ident()
            if self._current is not None:
                previous, asked_by = self._current
                if asked_by != thread:
                    raise BadInput(
                        "This chat is answering in another thread; give each thread a chat of its "
                        "own."
                    )
                previous.close()
            self._current = answer, thread
        try:
            yield from answer
        finally:
            if self._current is not None and self._current[0] is answer:
                self._current = None

    def _answer(
        self, text: str, images: list[ImageInput], settings: AnswerSettings
    ) -> Generator[StreamEvent]:
        timings = Timings()
        start = time.perf_counter()
        pictures = decoded(images)
        timings.image_seconds = time.perf_counter() - start
        exchange = Exchange(text, names=[getattr(p, "name", "an image") for p in pictures])
        if settings.prefix:
            template = self.engine.template
            exchange.answer = settings.prefix
            given = template.answer_prefix + template.escape(settings.prefix)
            exchange.answer_ids = self.engine.tokenizer.encode([given], begin=False)
        given_ids = len(exchange.answer_ids)
        for picture in pictures:
            for note in getattr(picture, "notes", ()):
                yield StreamEvent("", None, 0.0, timings, note)
        if len(pictures) > 1 and self._attends_to_last_only() and not self._told_of_images:
            self._told_of_images = True
            yield StreamEvent("", None, 0.0, timings, LAST_IMAGE_ONLY)
        exchange.images = self._encode_images(pictures, timings, settings.progress)
        before = [*self.exchanges]
        self.exchanges.append(exchange)
        try:
            if settings.drop_turns:
                wanted = min(settings.max_tokens, int(self.engine.context * FREE_SHARE))
                yield from make_room(self.conversation, wanted, timings)
            check_length(self.conversation)
            with self.lent_decoder(*self.prompt()) as decoder:
                yield from generate(self.conversation, decoder, settings, timings)
        except BaseException:  # Ctrl-C and a reader that stops early included
            if len(exchange.answer_ids) <= given_ids:
                self.exchanges[:] = before
            raise

    def _encode_images(
        self, pictures: list[Picture | ImageFeatures], timings: Timings, progress: Progress
    ) -> list[ImageFeatures]:
        start = time.perf_counter()
        features = []
        for done, picture in enumerate(pictures):
            if isinstance(picture, ImageFeatures):
                features.append(picture)
                continue

            def computing(done: int = done) -> None:
                timings.images_computed += 1
                progress("image", done, len(pictures))

            features.append(self.engine.vision.encode(picture, computing))
        timings.image_seconds += time.perf_counter() - start
        return features

    def _attends_to_last_only(self) -> bool:
        return self.engine.bundle.manifest.attend == PRECEDING


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadInput("The text holds half a character (not valid Unicode); retype it.") from None
