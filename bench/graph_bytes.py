"""How many bytes of weights a decoded token reads, by the decoder graph itself.

Contract: counts the matrices of every multiplication once; a token embedding is one row, norms and
rotary tables are small, and neither counts. The branches that run only with an image are told
apart, so that speeds with and without one are each divided by what they read.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

MULTIPLICATIONS = ("MatMul", "MatMulNBits")


@dataclass(frozen=True)
class DecodeBytes:
    """Bytes read for one token.

    Attributes:
        text: by what always runs: LLaMA.
        gated: more in a conversation with an image: the gated feed-forwards.
        cross_attention: more for a token that sees an image.
    """

    text: int
    gated: int
    cross_attention: int


def decode_bytes(graph: Path) -> DecodeBytes:
    """What the graph of a decoder reads; see `export.decoder_graph` for its branches."""
    depths = [0, 0, 0]
    _count(ir.load(graph).graph, 0, depths)
    return DecodeBytes(*depths)


def _count(nodes: Iterable[ir.Node], depth: int, depths: list[int]) -> None:
    for node in nodes:
        if node.op_type in MULTIPLICATIONS:
            constants = (value.const_value for value in node.inputs if value is not None)
            depths[depth] += sum(constant.nbytes for constant in constants if constant is not None)
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                _count(attribute.as_graph(), depth + 1, depths)
