"""The turns of a conversation, and how they become a prompt.

Contract: holds turns, not computations: a conversation can be built, copied, shortened or restored
from a file, and asks the engine only for its tokenizer, template and context length.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from lite.chat.engine import Engine
from lite.runtime.vision import ImageFeatures
from lite.text.template import Part, join


@dataclass
class Exchange:
    """One question and its answer.

    Attributes:
        question: as the person wrote it.
        images: features of the images before the question.
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
        engine: whose tokenizer and template it uses.
        system: the system line.
        exchanges: questions and answers, oldest first.
    """

    def __init__(self, engine: Engine, system: str | None = None) -> None:
        """`system` is the template's own by default."""
        self.engine = engine
        self.system = engine.template.system if system is None else system
        self.exchanges: list[Exchange] = []
        # What the last prompt was made of: tokenizing is the slow part of making one.
        self._question_ids: dict[tuple[str, int, str | None], list[int]] = {}

    def prompt(self) -> tuple[list[int], list[ImageFeatures]]:
        """Token ids of the whole conversation so far, and the images in it."""
        ids: list[int] = []
        images: list[ImageFeatures] = []
        used = {}
        for i, exchange in enumerate(self.exchanges):
            key = (exchange.question, len(exchange.images), None if i else self.system)
            used[key] = self._question_ids.get(key) or self._encode(*key)
            ids += used[key]
            ids += exchange.answer_ids
            images += exchange.images
        self._question_ids = used
        return ids, images

    def room(self) -> int:
        """Tokens that the context still holds; negative where the prompt is too long."""
        return self.engine.context - len(self.prompt()[0])

    def drop_oldest(self) -> None:
        """Forget the oldest exchange; its images move to the next one."""
        oldest, heir = self.exchanges.pop(0), self.exchanges[0]
        if heir is not self.exchanges[-1]:  # a copy, in case the history is put back
            heir = self.exchanges[0] = replace(heir)
        heir.images = oldest.images + heir.images
        heir.names = oldest.names + heir.names

    def _encode(self, question: str, images: int, system: str | None) -> list[int]:
        """Ids of one turn up to its answer; `system` is None for turns after the first."""
        template, first = self.engine.template, system is not None
        parts: list[Part] = [] if system is None else template.begin(system)
        parts += template.turn(question, images, first=first)
        return self.engine.tokenizer.encode(join(parts), begin=first)
