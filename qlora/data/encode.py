"""Conversations as what the model reads and what it must predict.

Contract: the ids are those that `lite.chat.conversation` would hold for the same conversation, so
the model is trained on the very context it is asked in. `</s>` is in no context: it is only what
the last token of an answer must predict. Nothing that a record's text spells becomes a special
token, and nothing but answers and their ends is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lite.text.template import Template, join
from lite.text.tokenizer import Tokenizer
from qlora.data.conversation import BadRecord, Conversation, Exchange, ImageRef

# Where nothing is trained; what torch's cross-entropy ignores by default.
IGNORE = -100


@dataclass(frozen=True, eq=False)
class Sample:
    """One conversation, ready to be packed.

    Attributes:
        ids: int64 `[T]`.
        targets: int64 `[T]`, the token that each position must predict, or `IGNORE`.
        weights: float32 `[T]`, what the record makes each position's loss count; 1 as a rule.
        images: those that stand in `ids`, see `lite.bundle.injection`.
        source: name of its data set.
        id: of the conversation.
        dropped: exchanges at the end that did not fit.
        cut: tokens at the end of the only answer that did not fit.
        context_only: answers that are not trained because the record says so.
    """

    ids: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    images: tuple[ImageRef, ...]
    source: str = ""
    id: str = ""
    dropped: int = 0
    cut: int = 0
    context_only: int = 0

    @property
    def trained(self) -> int:
        """Number of tokens that give a loss."""
        return int((self.targets != IGNORE).sum())


def encode(
    conversation: Conversation,
    tokenizer: Tokenizer,
    template: Template,
    max_tokens: int,
    source: str = "",
) -> Sample:
    """Tokens and targets of a conversation.

    What is too long loses whole exchanges at its end. A first exchange that is too long on its own
    loses the end of its answer, whose last token then predicts nothing; what stands before an
    answer is never cut, so where that leaves no room the sample is all `IGNORE`, and may be longer
    than `max_tokens`.

    Args:
        conversation: with at least one exchange.
        tokenizer: the model's.
        template: the prompt template.
        max_tokens: longest `ids`.
        source: name of the data set.

    Raises:
        BadRecord: a text is not valid Unicode.
    """
    ids: list[int] = []
    targets: list[int] = []
    weights: list[float] = []
    images: list[ImageRef] = []
    taken = cut = context_only = 0
    for exchange in conversation.exchanges:
        system = None if ids else conversation.system
        prompt = prompt_ids(exchange, tokenizer, template, begin=not ids, system=system)
        answer = token_ids(tokenizer, [template.answer_prefix + exchange.answer], begin=False)
        over = len(ids) + len(prompt) + len(answer) - max_tokens
        if over > 0 and taken:
            break
        wanted = [*answer, tokenizer.eos]
        if over > 0:
            cut = min(over, len(answer))
            answer = answer[: len(answer) - cut]
            wanted = [*answer, IGNORE] if answer else [IGNORE]
        trained = wanted if exchange.trained else [IGNORE] * len(wanted)
        ids += prompt + answer
        # Each position predicts the token after it: the prompt's last one the first of the answer.
        targets += [IGNORE] * (len(prompt) - 1) + trained
        weights += [exchange.weight] * (len(prompt) - 1 + len(trained))
        context_only += not exchange.trained
        images += exchange.images
        taken += 1
        if over > 0:
            break
    return Sample(
        ids=np.array(ids, np.int64),
        targets=np.array(targets, np.int64),
        weights=np.array(weights, np.float32),
        images=tuple(images),
        source=source,
        id=conversation.id,
        dropped=len(conversation.exchanges) - taken,
        cut=cut,
        context_only=context_only,
    )


def prompt_ids(
    exchange: Exchange, tokenizer: Tokenizer, template: Template, begin: bool, system: str | None
) -> list[int]:
    """Ids of a question up to where its answer starts.

    Args:
        exchange: the question, its context and its images.
        tokenizer, template: as for `encode`.
        begin: the conversation starts here, with its opening line.
        system: that line; None for the template's.

    Raises:
        BadRecord: a text is not valid Unicode.
    """
    images = len(exchange.images)
    parts = template.turn(exchange.question, images, exchange.context, first=begin)
    if begin:
        parts = [*template.begin(template.system if system is None else system), *parts]
    return token_ids(tokenizer, join(parts), begin)


def token_ids(tokenizer: Tokenizer, parts: Sequence[str], begin: bool) -> list[int]:
    """`tokenizer.encode` for texts from records. Raises `BadRecord` for what is no Unicode."""
    try:
        for part in parts:
            part.encode()
    except UnicodeEncodeError:
        raise BadRecord("text with half a character") from None
    return tokenizer.encode(parts, begin)
