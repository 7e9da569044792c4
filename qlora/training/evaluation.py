"""How good the model is now: loss on held-out samples, and answers to look at.

Contract: changes nothing, neither weights nor the order of training; the same samples each time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from lite.errors import BadInput
from qlora.data.conversation import Conversation
from qlora.model import VisionLanguageModel
from qlora.training.feed import SampleEncoder, record_name
from qlora.training.row_loss import RowLoss
from qlora.training.vision_features import VisionFeatures


@dataclass
class Evaluator:
    """Evaluates one model on held-out conversations.

    Attributes:
        held_out: conversations by kind (`qlora.data.opening.IMAGES`, `TEXT`).
        encoder: how samples are made.
        vision: what the model reads of images.
        answers: how many questions to answer, from each kind in turn.
        answer_tokens: longest answer.
    """

    held_out: dict[str, Sequence[tuple[Conversation, str]]]
    encoder: SampleEncoder
    vision: VisionFeatures
    answers: int
    answer_tokens: int

    def check(self) -> Counter[str]:
        """Decode all images, so that a broken one is found at the start and not after a night.

        Returns:
            What was taken out of `held_out`, by reason.

        Raises:
            BadInput: an image is broken and must not be skipped.
        """
        left_out: Counter[str] = Counter()
        for kind, conversations in self.held_out.items():
            usable = []
            for conversation, source in conversations:
                try:
                    self.encoder.image_inputs(conversation.images)
                    usable.append((conversation, source))
                except (BadInput, OSError) as problem:
                    if not self.encoder.skip_broken:
                        name = record_name(conversation, source)
                        raise self.encoder.refusal(problem, name) from problem
                    left_out["broken image"] += 1
            self.held_out[kind] = usable
        return left_out

    @torch.no_grad()
    def losses(self, row_loss: RowLoss) -> dict[str, float]:
        """Mean loss per trained token of a sample, over the samples of each kind."""
        means = {}
        for kind, conversations in self.held_out.items():
            losses = []
            for conversation, source in conversations:
                sample = self.encoder.sample(conversation, source)
                if not sample.trained:
                    continue
                row = self.encoder.row([sample])
                visual = self.vision.encode(self.encoder.image_inputs(sample.images))
                loss = float(row_loss(row, visual))
                losses.append(loss / self.encoder.weighting.count(row))
            if losses:
                means[kind] = float(np.mean(losses))
        return means

    def questions(self) -> list[tuple[Conversation, str]]:
        """The held-out conversations whose first question is answered."""
        by_kind = [list(conversations) for conversations in self.held_out.values()]
        longest = max(map(len, by_kind), default=0)
        mixed = [kind[i] for i in range(longest) for kind in by_kind if i < len(kind)]
        return mixed[: self.answers]

    def samples(self, model: VisionLanguageModel) -> list[dict[str, str]]:
        """First questions with the wanted and the given answer, greedily decoded."""
        tokenizer = self.encoder.tokenizer
        given = []
        for conversation, _ in self.questions():
            first = conversation.exchanges[0]
            new = model.generate(
                self.encoder.prompt(conversation),
                visual=self.vision.encode(self.encoder.image_inputs(first.images)),
                max_new_tokens=self.answer_tokens,
                eos=tokenizer.eos,
            )
            images = ", ".join(ref.name for ref in first.images)
            answer = {"image": images} if images else {}
            answer |= {"question": first.question, "wanted": first.answer}
            given.append(answer | {"given": tokenizer.decode(new).strip()})
        return given
