"""The frozen base of a training run: checkpoints read into 4 bits, one tensor at a time.

Contract: LLaMA's and the gated blocks' matrices become NF4 while they are read, everything else the
compute type, straight on the device; the host never holds more than the finished part and one
tensor. What comes out is complete, frozen and independent of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from qlora.checkpoints.pages import release
from qlora.model.model import VisionLanguageModel, assign, check_fit
from qlora.model.nf4 import BLOCK, Linear4bit, dequantize, nf4_linear
from qlora.model.weights import ModelWeights

LAYERS = "lang_encoder.model.layers."
# Embeddings and head stay out, as in QLoRA; resampler and vision tower are small.


def in_4_bits(name: str, shape: Sequence[int]) -> bool:
    """Whether the parameter of `VisionLanguageModel` of that name and shape is held in NF4.

    Rows that are no whole number of blocks stay as they are: bitsandbytes (0.50) dequantizes them
    wrongly on a CPU. No published LLaMA has such a size.
    """
    return name.startswith(LAYERS) and len(shape) == 2 and shape[-1] % BLOCK == 0


def load_quantized(
    weights: ModelWeights,
    *,
    compute: torch.dtype,
    device: torch.device | str = "cpu",
    base: Literal["nf4", "none"] = "nf4",
    double: bool = True,
    progress: Callable[[int], None] = lambda done: None,
) -> VisionLanguageModel:
    """Read the base of a training run; a LoRA in `weights` is left out.

    Args:
        weights: what to read.
        compute: type of activations and of every parameter that is not in 4 bits.
        device: where the model will live.
        base: `nf4`, or `none` for plain matrices in `compute`.
        double: quantize the NF4 constants too.
        progress: called with the number of values read so far.

    Returns:
        The model in eval mode, all parameters frozen.

    Raises:
        BadInput: weights and configuration do not fit each other.
    """
    model = VisionLanguageModel(weights.config, weights.special_ids["<image>"])
    check_fit(model, weights.base)
    done = 0
    for name, _ in [*model.named_parameters()]:
        tensor = weights.base[name]
        if base == "nf4" and in_4_bits(name, tensor.shape):
            layer = nf4_linear(tensor, compute, device, double)
            model.set_submodule(name.removesuffix(".weight"), layer)
        else:
            # A copy even where nothing changes: the tensor may be a view of its file.
            assign(model, name, tensor.to(device, compute, copy=True))
        release(tensor)
        done += tensor.numel()
        progress(done)
    model.lang_encoder.model.rotary_emb.to(device)
    # peft takes its class for 4-bit layers only where the model says this of itself.
    model.lang_encoder.is_loaded_in_4bit = base == "nf4"
    return model.eval()


def dequantized(module: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix `[out, in]` that a linear layer multiplies with, quantized or not.

    Of a layer with an adapter: give its `base_layer`.
    """
    if isinstance(module, Linear4bit):
        return dequantize(module.weight, module.weight.quant_state, dtype)
    assert isinstance(module.weight, Tensor)
    return module.weight.detach().to(dtype)
