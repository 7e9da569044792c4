"""Block-wise weight quantization in the layout of ONNX Runtime's MatMulNBits.

Contract: numpy in, numpy out, a few rows at a time, so that a large matrix never needs a second
float copy of itself. Symmetric, one scale per block along the input axis; the block's extreme value
maps to the most negative code, which is the one step more that two's complement has.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Rows quantized together: bounds the temporary float copies.
ROWS = 1024


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
    """Quantize `weight [out, in]` (float) to `bits` (4 or 8) in blocks of `block` columns."""
    rows, columns = weight.shape
    block = block_size(columns, block)
    blocks = -(-columns // block)
    codes = np.empty((rows, blocks, block * bits // 8), dtype=np.uint8)
    scales = np.empty((rows, blocks), dtype=np.float32)
    for start in range(0, rows, ROWS):
        part = slice(start, start + ROWS)
        codes[part], scales[part] = _quantize_rows(weight[part], bits, block, blocks)
    return BlockQuantized(codes, scales, bits, block, columns)


def _quantize_rows(
    rows: np.ndarray, bits: int, block: int, blocks: int
) -> tuple[np.ndarray, np.ndarray]:
    padded = np.zeros((rows.shape[0], blocks * block), dtype=np.float32)
    padded[:, : rows.shape[1]] = rows
    values = padded.reshape(rows.shape[0], blocks, block)
    zero = 2 ** (bits - 1)
    extreme = np.take_along_axis(values, np.abs(values).argmax(-1)[..., None], axis=-1)[..., 0]
    scales = extreme / -zero
    inverse = np.divide(1.0, scales, out=np.zeros_like(scales), where=scales != 0)
    codes = np.clip(np.rint(values * inverse[..., None]) + zero, 0, 2 * zero - 1).astype(np.uint8)
    if bits == 4:
        codes = codes[..., 0::2] | (codes[..., 1::2] << 4)
    return codes, scales
