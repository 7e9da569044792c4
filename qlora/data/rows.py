"""Samples packed one after the other into a row, without padding.

Contract: packing changes no sample's result. Positions start again with each sample, which is how
transformers knows not to let one attend to another, and images are numbered through the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lite.bundle.injection import Injection
from qlora.data.conversation import ImageRef
from qlora.data.encode import IGNORE, Sample


@dataclass
class Row:
    """Samples side by side; all tensors are on the CPU.

    Attributes:
        ids: int64 `[T]`.
        positions: int64 `[T]`, from 0 in each sample. Without an attention mask and a KV cache,
            transformers makes the block-diagonal causal mask from them.
        targets: int64 `[T]`, the token to predict, or `IGNORE`.
        weights: float32 `[T]`, of each position's loss; 0 where nothing is trained.
        index: int64 `[T]`, the image of the row that each token sees or is a part of, from 1; 0
            for none.
        images: all images of the row, in order.
        samples: how many there are.
    """

    ids: Tensor
    positions: Tensor
    targets: Tensor
    weights: Tensor
    index: Tensor
    images: list[ImageRef]
    samples: int


def pack(
    samples: Sequence[Sample], image_id: int, attend: str, normalise: str, image_tokens: int = 1
) -> Row:
    """Put samples into one row.

    Args:
        samples: at least one; either all with images or all without, because the gated blocks run
            for a whole row or not at all.
        image_id: the id of `<image>`.
        attend: the attend rule, see `lite.bundle.attend`.
        normalise: `sample` gives each sample the weight 1, shared by its trained tokens (the mean
            of the original, which has one sample in a batch); `token` gives each token the weight
            1. The caller divides by the number of samples or tokens.
        image_tokens: `<image>` tokens that stand for one image.

    Raises:
        ValueError: samples with and without images, or an unknown `normalise`.
    """
    if len({bool(sample.images) for sample in samples}) != 1:
        raise ValueError("a row takes samples with images or samples without, not both")
    how = Injection(image_id, image_tokens, attend)
    index, shown = [], 0
    for sample in samples:
        own = how.index(sample.ids).astype(np.int64)
        index.append(np.where(own > 0, own + shown, 0))
        shown += len(sample.images)
    return Row(
        ids=_join([sample.ids for sample in samples]),
        positions=_join([np.arange(len(sample.ids)) for sample in samples]),
        targets=_join([sample.targets for sample in samples]),
        weights=_join([_weights(sample, normalise) for sample in samples]),
        index=_join(index),
        images=[image for sample in samples for image in sample.images],
        samples=len(samples),
    )


def _join(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))


def _weights(sample: Sample, normalise: str) -> np.ndarray:
    trained = (sample.targets != IGNORE).astype(np.float32)
    if normalise == "token":
        return trained
    if normalise != "sample":
        raise ValueError(f"normalise is sample or token, not {normalise!r}")
    return trained / max(1, sample.trained)
