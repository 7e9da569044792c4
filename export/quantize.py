"""Block-wise weight quantization in the layout of ONNX Runtime's MatMulNBits.

Contract: numpy in, numpy out, a few rows at a time, so that a large matrix never needs a second
float copy of itself. Symmetric, one scale per block along the input axis. At 8 bits the block's
extreme value maps to the most negative code, which is the one step more that two's complement has;
at 4 bits, where steps are coarse, the scale of least error is searched, around that one.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from lite.runtime.cpu import usable_cores

# Rows quantized together: bounds the temporary float copies.
ROWS = 256
# Codes that a 4-bit block's extreme value is tried with; beyond 8 it is clipped and the others get
# finer steps. Takes 7 to 12 % off the squared error of 8 alone; more candidates, 1 % more.
EXTREME_CODES = (8, 7, 9)


@dataclass(frozen=True)
class BlockQuantized:
    """One weight `[out, in]` in blocks along `in`.

    Attributes:
        codes: uint8 `[out, blocks, block * bits / 8]`, two 4-bit codes a byte, low nibble first;
            stored with the zero point 2^(bits - 1) added, which MatMulNBits assumes.
        scales: float32 `[out, blocks]`.
        bits: 4 or 8.
        block: values per block.
        columns: `in`; the last block is padded with zeros.
    """

    codes: np.ndarray
    scales: np.ndarray
    bits: int
    block: int
    columns: int

    @classmethod
    def of(cls, node: ir.Node) -> BlockQuantized:
        """The weight that a MatMulNBits node without zero points holds."""
        codes, scales = (
            value.const_value.numpy()
            for value in node.inputs[1:3]
            if value is not None and value.const_value is not None
        )
        rows, columns, bits, block = (
            node.attributes[name].as_int() for name in ("N", "K", "bits", "block_size")
        )
        codes = codes.reshape(rows, -1, block * bits // 8)
        return cls(codes, scales.reshape(rows, -1), bits, block, columns)

    def dequantize(self) -> np.ndarray:
        """The float32 weight `[out, in]` that these codes stand for."""
        codes = self.codes
        if self.bits == 4:
            codes = np.stack((codes & 0xF, codes >> 4), axis=-1).reshape(*codes.shape[:2], -1)
        values = (codes.astype(np.float32) - 2 ** (self.bits - 1)) * self.scales[..., None]
        return values.reshape(codes.shape[0], -1)[:, : self.columns]


def block_size(columns: int, block: int) -> int:
    """`block`, or for a narrower matrix the smallest power of two (at least 16) that holds it."""
    fits = 1 << max(4, (columns - 1).bit_length())
    return min(block, fits)


def quantize(weight: np.ndarray, bits: int, block: int) -> BlockQuantized:
    """Quantize to `bits` (4 or 8) in blocks of `block` columns.

    Args:
        weight: `[out, in]`, of any float type.
        bits: 4 or 8.
        block: columns that share a scale, see `block_size`.
    """
    rows, columns = weight.shape
    block = block_size(columns, block)
    blocks = -(-columns // block)
    codes = np.empty((rows, blocks, block * bits // 8), dtype=np.uint8)
    scales = np.empty((rows, blocks), dtype=np.float32)

    def work(start: int) -> None:
        part = slice(start, start + ROWS)
        codes[part], scales[part] = _quantize_rows(weight[part], bits, block, blocks)

    with ThreadPoolExecutor(usable_cores()) as pool:  # numpy computes without the interpreter lock
        list(pool.map(work, range(0, rows, ROWS)))
    return BlockQuantized(codes, scales, bits, block, columns)


def _quantize_rows(
    rows: np.ndarray, bits: int, block: int, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    padded = np.zeros((rows.shape[0], blocks * block), dtype=np.float32)
    padded[:, : rows.shape[1]] = rows
    values = padded.reshape(rows.shape[0], blocks, block)
    zero = 2 ** (bits - 1)
    extreme = np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], axis=-1)[..., 0]
    if bits == 4:
        codes, scales = _least_error(values, extreme)
    else:
        scales = extreme / -zero
        codes = _rounded(values, scales, zero)
    stored = (codes + zero).astype(np.uint8)
    if bits == 4:
        stored = stored[..., 0::2] | (stored[..., 1::2] << 4)
    return stored, scales


def _least_error(values: np.ndarray, extreme: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """4-bit codes and scales of the candidate that moves a block's values least (sum of squares).

    Each candidate's scale is first fitted to its codes by least squares, as llama.cpp does for its
    K-quants (`make_qx_quants` of ggml-quants.c).
    """
    best = _fitted(values, extreme / -EXTREME_CODES[0])
    for code in EXTREME_CODES[1:]:
        codes, scales, error = _fitted(values, extreme / -code)
        better = error < best[2]
        best = (
            np.where(better[..., None], codes, best[0]),
            np.where(better, scales, best[1]),
            np.where(better, error, best[2]),
        )
    return best[0], best[1]


def _fitted(values: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    codes = _rounded(values, scales, 8)
    weight = np.einsum("rbi,rbi->rb", codes, codes)
    product = np.einsum("rbi,rbi->rb", values, codes)
    scales = np.divide(product, weight, out=scales, where=weight > 0)
    codes = _rounded(values, scales, 8)
    error = values - codes * scales[..., None]
    return codes, scales, np.einsum("rbi,rbi->rb", error, error)


def _rounded(values: np.ndarray, scales: np.ndarray, zero: int) -> np.ndarray:
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    codes = np.rint(values * inverse[..., None])
    return np.clip(codes, -zero, zero - 1, out=codes)
