"""The base that an adapter was trained around, read off the original checkpoints once more.

Contract: bit for bit what a model of `load_quantized` multiplies with, matrix by matrix and only
when asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from qlora.checkpoints.sources import TensorSource
from qlora.checkpoints.views import DerivedTensors
from qlora.model.nf4 import dequantize, quantize
from qlora.model.quantized import in_4_bits


class Nf4Base(DerivedTensors):
    """`weights` with each matrix that training holds in NF4 as training multiplies with it."""

    def __init__(self, weights: TensorSource, double: bool, compute: torch.dtype) -> None:
        """
        Args:
            weights: under the names of `qlora.model.VisionLanguageModel`'s parameters.
            double: the constants were quantized too.
            compute: the type that dequantized values are rounded to.
        """
        super().__init__(weights)
        self.double, self.compute = double, compute

    def __getitem__(self, name: str) -> Tensor:
        weight = self.weights[name]
        if not in_4_bits(name, weight.shape):
            return weight
        return dequantize(*quantize(weight, self.double), self.compute)

    def dtype(self, name: str) -> torch.dtype:
        in_nf4 = in_4_bits(name, self.shape(name))
        return self.compute if in_nf4 else self.weights.dtype(name)
