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
from qlora.data.weighting import Weighting


@dataclass
class Row:
    """Samples side by side; all tensors are on the CPU.

    Attributes:
        ids: int64 `[T]`.
        positions: int64 `[T]`, from 0 in each sample. Without an attention mask and a KV cache,
            transformers makes the block-diagonal causal mask from them.
        targets: int64 `[T]`, the token to predict, or `IGNORE`.
        weights: float32 `[T]`, of each position's loss; 0 where nothing is trained.
        index: int64 `[T]`, the image of the row that each token attends to or is a part of, from
            1; 0 for none.
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

    @property
    def trained(self) -> int:
        """Number of tokens that give a loss."""
        return int((self.targets != IGNORE).sum())


def pack(samples: Sequence[Sample], injection: Injection, weighting: Weighting) -> Row:
    """Put samples into one row.

    Args:
        samples: at least one; either all with images or all without, because the gated blocks run
            for a whole row or not at all.
        injection: how images enter the decoder.
        weighting: of the tokens' losses.

    Raises:
        ValueError: samples with and without images.
    """
    if len({bool(sample.images) for sample in samples}) != 1:
        raise ValueError("a row takes samples with images or samples without, not both")
    index, images_before = [], 0
    for sample in samples:
        own = injection.attended_images(sample.ids).astype(np.int64)
        index.append(np.where(own > 0, own + images_before, 0))
        images_before += len(sample.images)
    return Row(
        ids=_join([sample.ids for sample in samples]),
        positions=_join([np.arange(len(sample.ids)) for sample in samples]),
        targets=_join([sample.targets for sample in samples]),
        weights=_join([weighting.weights(sample) for sample in samples]),
        index=_join(index),
        images=[image for sample in samples for image in sample.images],
        samples=len(samples),
    )


def _join(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.concatenate(arrays))
