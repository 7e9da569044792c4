"""What was said and shown so far, and how it becomes a prompt.

Contract: holds turns, not computations: a conversation can be built, copied, shortened or restored
from a file, and asks the engine only for its tokenizer and template.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lite.chat.engine import Engine
from lite.runtime.decoder import Decoder
from lite.runtime.vision import ImageFeatures
from lite.text.template import Part, join


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
    images: list[ImageFeatures] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    answer: str = ""
    answer_ids: list[int] = field(default_factory=list)


class Conversation:
    """The turns of one conversation with a model.

    Attributes:
        engine: what it runs on.
        decoder: whose KV cache it uses; the engine's own unless it was given another.
        system: the opening line.
        exchanges: questions and answers, oldest first.
    """

    def __init__(
        self, engine: Engine, system: str | None = None, decoder: Decoder | None = None
    ) -> None:
        self.engine = engine
        self._decoder = decoder
        self.system = engine.template.system if system is None else system
        self.exchanges: list[Exchange] = []

    @property
    def decoder(self) -> Decoder:
        return self._decoder or self.engine.decoder

    def prompt(self) -> tuple[list[int], list[ImageFeatures]]:
        """Ids of the whole conversation so far, and the images in it."""
        ids: list[int] = []
        images: list[ImageFeatures] = []
        for exchange in self.exchanges:
            how, images_shown = self.engine.template, len(exchange.images)
            parts: list[Part] = [] if ids else how.begin(self.system)
            parts += how.turn(exchange.question, images_shown, first=not ids)
            ids += self.engine.tokenizer.encode(join(parts), begin=not ids)
            ids += exchange.answer_ids
            images += exchange.images
        return ids, images

    def room(self) -> int:
        """Tokens that the context still holds."""
        return self.engine.context - len(self.prompt()[0])

    def drop_oldest(self) -> None:
        """Forget the oldest exchange; its images move to the next one."""
        oldest, heir = self.exchanges.pop(0), self.exchanges[0]
        if heir is not self.exchanges[-1]:  # a copy, in case the history is put back
            heir = self.exchanges[0] = replace(heir)
        heir.images = oldest.images + heir.images
        heir.names = oldest.names + heir.names
