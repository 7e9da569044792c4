"""Which weight gets how many bits.

Contract: the only place that knows. `Precision.of(role)` answers for every linear layer; all other
weights (norms, biases, embeddings, convolutions) stay in floating point.
"""

from __future__ import annotations

from dataclasses import dataclass

from lite.errors import BadInput

# At 4 bits these roles stay at 8: the head decides every token, the cross-attention projections
# are small (5.2 M of 139 M parameters a block) and all that the answer knows of the image passes
# through them.
SENSITIVE = frozenset({"lm_head", "cross_attention"})


@dataclass(frozen=True)
class Precision:
    """How one graph stores its linear layers.

    Attributes:
        name: as the manifest spells it.
        bits: 32 (float), 8 or 4.
        block: columns that share one scale.
    """

    name: str
    bits: int
    block: int = 0

    def of(self, role: str) -> Precision:
        """The precision of a layer that plays `role`."""
        return INT8 if self.bits == 4 and role in SENSITIVE else self

    @property
    def vision(self) -> Precision:
        """The vision graph's: 4 bits cost a ViT 10 % error per multiplication, so never below 8."""
        return INT8 if self.bits == 4 else self


FP32 = Precision("fp32", 32)
# ONNX Runtime's CPU kernels are fast for blocks of 32 to 128 only; 16 falls off (5x slower).
INT8 = Precision("int8", 8, block=128)
INT4 = Precision("int4", 4, block=32)
PRECISIONS = {p.name: p for p in (INT8, INT4, FP32)}


def precision(name: str) -> Precision:
    """The precision called `name`.

    Raises:
        BadInput: there is none.
    """
    if name not in PRECISIONS:
        raise BadInput(f"The precision {name!r} is unknown; choose {', '.join(PRECISIONS)}.")
    return PRECISIONS[name]
