"""How far a merged model is from the one that was trained, layer by layer on real activations.

Contract: the model runs as it was trained (NF4 base, the adapter beside it, in float32) over the
probes with pictures. On the very activations that reach it, each adapted layer is compared with the
adapter merged into the NF4 base and merged into the original weights. One decoder layer is in
memory at a time, and each matrix is quantized once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from export.merge_base import FP16, NF4, Merge
from export.probes import Probe, make_probes, stream
from export.proof import Proof
from lite.text.template import template
from qlora.checkpoints.lora import LoraDelta
from qlora.checkpoints.sources import TensorSource
from qlora.model import VisionLanguageModel

KINDS = ("self-attention", "cross-attention", "feed-forward", "head")
# A float32 merge differs from the adapter beside its base by rounding alone; in bfloat16, weights,
# activations and results are rounded to 8 bits each, which measures as 0.3 %.
FP32_LIMIT, BF16_LIMIT = 1e-5, 5e-3


@dataclass(frozen=True)
class LayerDrift:
    """One adapted layer; errors are relative, `|y - trained| / |trained|` over all probes.

    Attributes:
        path: of the module inside the language model.
        kind: one of `KINDS`.
        nf4_fp32: error of the merge into NF4, in float32.
        nf4: the same in bfloat16.
        fp16: error of the merge into the original weights, in bfloat16.
        ratio: NF4's error of the weights over what the adapter changes, `|q| / |delta|`; None where
            the adapter changes nothing.
    """

    path: str
    kind: str
    nf4_fp32: float
    nf4: float
    fp16: float
    ratio: float | None


@dataclass(frozen=True)
class Drift:
    """The layers of one model, and which merge was chosen (`nf4` or `fp16`)."""

    into: str
    layers: list[LayerDrift]

    def proofs(self) -> list[Proof]:
        """For the chain of proofs: limits where the merge is into what was trained."""
        nf4 = self._median("nf4", "NF4 merge, bf16", BF16_LIMIT if self.into == NF4 else None)
        fp16 = self._median("fp16", "fp16 merge, bf16", None)
        if self.into == FP16:
            return [fp16, nf4]
        worst = float(np.max([layer.nf4_fp32 for layer in self.layers]))
        merged = Proof("adapter merged", "adapter applied", "relative error", worst, FP32_LIMIT)
        return [merged, nf4, fp16]

    def by_kind(self) -> dict[str, list[LayerDrift]]:
        """The layers of each kind that the adapter adapts."""
        groups = {kind: [x for x in self.layers if x.kind == kind] for kind in KINDS}
        return {kind: layers for kind, layers in groups.items() if layers}

    def advice(self) -> str:
        """One line: which merge keeps what was trained."""
        ratios = [layer.ratio for layer in self.layers if layer.ratio is not None]
        if not ratios:
            return "The adapter changes nothing: it has not been trained."
        ratio = float(np.median(ratios))
        if ratio >= 1:
            return (
                f"NF4's error is {ratio:.1f} times what the adapter changes, and the adapter was "
                f"trained around it: only the NF4 merge keeps it (--merge-base nf4)."
            )
        return (
            f"The adapter changes {1 / ratio:.1f} times as much as NF4's error, so it survives "
            f"either merge; the NF4 merge is what was trained (--merge-base nf4)."
        )

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        layers = [asdict(layer) for layer in self.layers]
        return {"merged_into": self.into, "advice": self.advice(), "layers": layers}

    def _median(self, measure: str, step: str, limit: float | None) -> Proof:
        value = float(np.median([getattr(layer, measure) for layer in self.layers]))
        return Proof(step, "adapter as trained", "median error", value, limit)


def measure(merge: Merge) -> Drift:
    """Run the probes through the model as it was trained.

    Args:
        merge: of an adapter that was trained on NF4 (`merge.trained` and its LoRA are there).
    """
    weights, trained = merge.weights, merge.trained
    assert trained is not None
    assert weights.lora is not None
    model = VisionLanguageModel(weights.config, weights.special_ids["<image>"]).eval()
    stream(model, trained)
    meters = []
    inside = {p: d for p, d in weights.lora.deltas.items() if not p.endswith("weight")}
    for path, delta in inside.items():  # what was trained on NF4 is in the language model
        meters.append(_Meter(path, delta, merge.original))
        model.lang_encoder.get_submodule(path).register_forward_hook(meters[-1])
    text = template(weights.config.template)
    probes = make_probes(weights.chat_tokenizer(), text, weights.config.preprocessing)
    with torch.no_grad():
        _run(model, [probe for probe in probes if probe.pixels is not None])
    return Drift(merge.into, [layer for meter in meters for layer in meter.found])


class _Meter:
    """A forward hook that adds the adapter to its layer's output, and compares the merges."""

    def __init__(self, path: str, delta: LoraDelta, original: TensorSource) -> None:
        self.path, self.delta, self.original = path, delta, original
        self.found: list[LayerDrift] = []

    def __call__(self, module: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,), base = inputs, module.weight
        original = self.original[f"lang_encoder.{self.path}.weight"].float()
        merged = self.delta.merged(base)
        change = float((merged - base).norm())
        trained = self._beside(x, output, base)
        self.found.append(
            LayerDrift(
                self.path,
                kind_of(self.path),
                nf4_fp32=_error(linear(x, merged), trained),
                nf4=_error(_in_bf16(x, merged), trained),
                fp16=_error(_in_bf16(x, self.delta.merged(original)), trained),
                ratio=float((base - original).norm()) / change if change else None,
            )
        )
        return trained

    def _beside(self, x: Tensor, output: Tensor, base: Tensor) -> Tensor:
        """The layer's output with the adapter as a branch of its own, as training computes it."""
        a, b = self.delta.a.float(), self.delta.b.float()
        y = output + self.delta.scaling * linear(linear(x, a), b)
        if self.delta.magnitude is None:
            return y
        norms = torch.linalg.vector_norm(base + self.delta.delta(), dim=1)
        return y * (self.delta.magnitude.float() / norms)


def kind_of(path: str) -> str:
    """The kind of a module of the language model."""
    if ".self_attn." in path:
        return "self-attention"
    if ".mlp." in path or ".ff." in path or path.endswith(("gate_proj", "up_proj", "down_proj")):
        return "feed-forward"
    return "cross-attention" if ".gated_cross_attn_layer." in path else "head"


def _run(model: VisionLanguageModel, probes: Sequence[Probe]) -> None:
    """All probes as one row of several samples, so that each layer is loaded once."""
    ids, positions, index, pixels = [], [], [], []
    images = 0
    for probe in probes:
        assert probe.pixels is not None
        sample = torch.tensor(probe.ids)[None]
        attended = model.image_index(sample, len(probe.pixels))
        ids.append(sample)
        positions.append(torch.arange(sample.shape[1])[None])
        index.append(torch.where(attended > 0, attended + images, 0))
        pixels.append(probe.pixels)
        images += len(probe.pixels)
    model(
        torch.cat(ids, dim=1),
        visual=model.encode(torch.cat(pixels))[None],
        index=torch.cat(index, dim=1),
        positions=torch.cat(positions, dim=1),
    )


def _in_bf16(x: Tensor, weight: Tensor) -> Tensor:
    return linear(x.bfloat16(), weight.bfloat16()).float()


def _error(y: Tensor, trained: Tensor) -> float:
    return float((y - trained).norm() / trained.norm().clamp(min=1e-30))
