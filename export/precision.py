"""Which weight gets how many bits.

Contract: the only place that knows. `Precision.of(role)` answers for every linear layer; all other
weights (norms, biases, embeddings, convolutions) stay in floating point.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from lite.errors import BadInput

# Roles that may stay at 8 bits where the others have 4. The head decides every token; the
# cross-attention projections are small (5.2 M of 139 M parameters a block) and all that the answer
# knows of the image passes through them: both do by default. down_proj meets LLaMA's outliers, but
# holds a third of its parameters: 0.7 GB and an eighth of the speed at 7B, so it is asked for.
ROLES = ("lm_head", "cross_attention", "down_proj")
SENSITIVE = frozenset({"lm_head", "cross_attention"})


@dataclass(frozen=True)
class Precision:
    """How one graph stores its linear layers.

    Attributes:
        name: as the manifest spells it.
        bits: of a weight: 32 or 16 (float), 8 or 4.
        block: columns that share one scale.
        kv_bits: of the KV cache: 32 (as activations) or 8, see `export.kv_cache`.
        activations: bits of what flows between the layers: 32, or 16 for GPUs, whose fused
            attention takes nothing else. On a CPU ONNX Runtime converts back and forth.
        sensitive: those of `ROLES` that have 8 bits where the others have 4.
    """

    name: str
    bits: int
    block: int = 0
    kv_bits: int = 32
    activations: int = 32
    sensitive: frozenset[str] = SENSITIVE

    @property
    def exact(self) -> bool:
        """Whether nothing is rounded to fewer bits than float32 has."""
        return self.bits == self.kv_bits == self.activations == 32

    def of(self, role: str) -> Precision:
        """The precision of a layer that plays `role`."""
        return INT8 if self.bits == 4 and role in self.sensitive else self

    @property
    def vision(self) -> Precision:
        """The vision graph's: 4 bits cost a ViT 10 % error per multiplication, so never below 8."""
        return replace(INT8, activations=self.activations) if self.bits == 4 else self


FP32 = Precision("fp32", 32)
FP16 = Precision("fp16", 16, activations=16)
# ONNX Runtime rounds activations to 8 bits in blocks of the same size, so one outlier among them
# spoils its whole block. 32 is what llama.cpp's Q8_0 and Q4_0 do, whose losses on LLaMA-7B are
# published (KL 0.0004 and 0.03). 128 would be a third faster; 16 is off the fast kernels.
INT8 = Precision("int8", 8, block=32)
INT4 = Precision("int4", 4, block=32)
BLOCKS = (32, 64, 128)
PRECISIONS = {p.name: p for p in (INT8, INT4, FP16, FP32)}


def precision(name: str, **changes: Any) -> Precision:
    """The precision called `name`, with other values for some of its fields.

    Raises:
        BadInput: there is none.
    """
    if name not in PRECISIONS:
        raise BadInput(f"The precision {name!r} is unknown; choose {', '.join(PRECISIONS)}.")
    return replace(PRECISIONS[name], **changes)
