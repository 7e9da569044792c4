"""What an adapter is merged into: the NF4 base it was trained around, or the original weights.

Contract: the choice is made once, here, from what the person asked and what the adapter's folder
tells. The weights that come out are views: matrices are quantized and merged one by one, when the
export reads them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch

from lite.errors import BadInput
from qlora.checkpoints.sources import TensorSource
from qlora.checkpoints.training_facts import TrainingFacts
from qlora.model import ModelWeights
from qlora.model.weights import LoraMerged

AUTO, NF4, FP16 = "auto", "nf4", "fp16"
# Where NF4 is asked for and nothing tells how it was: the QLoRA paper's settings.
_QLORA = TrainingFacts(nf4=True, double_quantization=True, compute=torch.bfloat16, attend=None)


@dataclass(frozen=True)
class Merge:
    """Weights to export, and what is needed to tell how far they are from the trained ones.

    Attributes:
        into: `nf4` or `fp16`.
        weights: to export; their base is the chosen one.
        original: the base as the checkpoints store it.
        trained: the NF4 base that the adapter was trained around; None for an adapter of
            unquantized weights, which merges without loss, and without an adapter.
    """

    into: str
    weights: ModelWeights
    original: TensorSource
    trained: TensorSource | None


def choose(weights: ModelWeights, facts: TrainingFacts | None, asked: str = AUTO) -> Merge:
    """Settle on a base.

    Args:
        weights: as `read_flamingo` gives them, merged into the original base.
        facts: what the adapter was trained around, if its folder tells.
        asked: `auto`, `nf4` or `fp16`; `auto` is `nf4` for an adapter that says that it was
            trained on NF4, else `fp16`.

    Raises:
        BadInput: a base is asked for without an adapter, or NF4 for an adapter that says it was
            trained on unquantized weights.
    """
    if weights.lora is None:
        if asked != AUTO:
            raise BadInput(
                f"--merge-base {asked} says what a LoRA is merged into, but there is none; give "
                f"--lora, or leave --merge-base out."
            )
        return Merge(FP16, weights, weights.base, None)
    if asked == NF4 and facts is not None and not facts.nf4:
        raise BadInput(
            f"{weights.lora.path} says that it was trained on unquantized weights, so merging into "
            f"NF4 would only add its error; leave --merge-base out."
        )
    if asked == NF4 and facts is None:
        facts = _QLORA
    if facts is None or not facts.nf4:
        return Merge(FP16, weights, weights.base, None)
    # bitsandbytes takes seconds to load, which most exports do not need.
    from qlora.model.nf4_base import Nf4Base

    trained = Nf4Base(weights.base, facts.double_quantization, facts.compute)
    if asked == FP16:
        return Merge(FP16, weights, weights.base, trained)
    merged = LoraMerged(trained, weights.lora.deltas)
    exported = dataclasses.replace(weights, base=trained, tensors=merged)
    return Merge(NF4, exported, weights.base, trained)


def with_attend(
    weights: ModelWeights, facts: TrainingFacts | None, asked: str | None
) -> ModelWeights:
    """The same weights under the attend rule that their adapter was trained with, if it tells.

    Raises:
        BadInput: another rule is asked for.
    """
    if facts is None or facts.attend is None or weights.lora is None:
        return weights
    if asked is not None and asked != facts.attend:
        raise BadInput(
            f"--attend is {asked} but {weights.lora.path} was trained with {facts.attend}; leave "
            f"--attend out."
        )
    config = dataclasses.replace(weights.config, attend=facts.attend)
    return dataclasses.replace(weights, config=config)
