"""Matrices in 4 bits: NF4 with double quantization (QLoRA, arXiv 2305.14314), by bitsandbytes.

Contract: the bytes are those of `bitsandbytes.functional.quantize_4bit`, made with temporary memory
for a part of the matrix only. A layer made here computes from these bytes in training and in
evaluation alike, on every device, and never changes them.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

# NF4's block, and the block of the constants' own quantization: what QLoRA and its tools use.
BLOCK, NESTED_BLOCK = 64, 256
# Values quantized at a time, a multiple of BLOCK: bounds the temporary float copies.
_CHUNK = 1 << 22


@contextmanager
def _no_download() -> Iterator[None]:
    """bitsandbytes fetches a compiled kernel from the hub at import where it finds `kernels`."""
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level, found = log.level, sys.modules.get("kernels")
    log.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        log.setLevel(level)
        del sys.modules["kernels"]
        if found is not None:
            sys.modules["kernels"] = found


with _no_download():
    import bitsandbytes
    from bitsandbytes.functional import QuantState
    from bitsandbytes.nn import Linear4bit, Params4bit

__all__ = ["BLOCK", "NESTED_BLOCK", "Linear4bit", "dequantize", "nf4_linear", "quantize"]


def nf4_linear(
    weight: Tensor, compute: torch.dtype, device: torch.device | str, double: bool = True
) -> Linear4bit:
    """A frozen linear layer without bias that holds `weight [out, in]` in NF4.

    Args:
        weight: float matrix on the CPU; not kept.
        compute: type to multiply in.
        device: where the layer lives, and where its weight is quantized.
        double: quantize the constants too.
    """
    rows, columns = weight.shape
    layer = Linear4bit(
        columns,
        rows,
        bias=False,
        compute_dtype=compute,
        compress_statistics=double,
        quant_type="nf4",
        device="meta",
    )
    # Otherwise the first evaluation on a CPU with AVX512-BF16 repacks the weight in place: later
    # training steps would lose their gradients without an error, and dequantizing would give
    # garbage (bitsandbytes 0.50, nn/modules.py, `Linear4bit.forward`).
    layer.support_avx512bf16_for_cpu = False
    packed, state = quantize(weight.to(device), double)
    # Dequantizing rounds to this type last; the 4-bit codes and constants do not depend on it.
    state.dtype = compute
    layer.quant_state = state
    layer.weight = Params4bit(
        packed,
        requires_grad=False,
        quant_state=state,
        compress_statistics=double,
        quant_type="nf4",
        module=layer,
        bnb_quantized=True,
    )
    return layer


def quantize(weight: Tensor, double: bool = True) -> tuple[Tensor, QuantState]:
    """`weight [out, in]` as two 4-bit codes a byte, `[out * in / 2, 1]`, and their constants."""
    flat = weight.reshape(-1)
    flat = flat.float() if flat.dtype == torch.float64 else flat
    # Made before the temporaries: in between them, what stays would keep freed memory from use.
    packed = torch.empty(-(-flat.numel() // 2), 1, dtype=torch.uint8, device=flat.device)
    absmax = torch.empty(-(-flat.numel() // BLOCK), device=flat.device)
    for start in range(0, flat.numel(), _CHUNK):
        part = flat[start : start + _CHUNK]
        codes, state = bitsandbytes.functional.quantize_4bit(
            part, blocksize=BLOCK, quant_type="nf4"
        )
        packed[start // 2 : start // 2 + len(codes)] = codes
        absmax[start // BLOCK : start // BLOCK + len(state.absmax)] = state.absmax
    offset, nested = None, None
    if double:
        offset = absmax.mean()
        absmax, nested = bitsandbytes.functional.quantize_blockwise(
            absmax - offset, blocksize=NESTED_BLOCK
        )
    state = QuantState(
        absmax=absmax,
        shape=weight.shape,
        code=bitsandbytes.functional.get_4bit_type("nf4", device=weight.device),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=flat.dtype,
        offset=offset,
        state2=nested,
    )
    return packed, state


def dequantize(packed: Tensor, state: QuantState, dtype: torch.dtype = torch.float32) -> Tensor:
    """The matrix `[out, in]` that 4-bit codes stand for."""
    typed = copy.copy(state)
    typed.dtype = dtype
    return bitsandbytes.functional.dequantize_4bit(packed, typed)
