"""An int8 KV cache: a quarter of the memory, and of the reading at long contexts.

Contract: takes a finished decoder graph with a float KV cache and the model opened from it, finds a
scale for each channel of each layer's keys and values on prompts with and without images, and
rewrites the graph file; the weights' file stays as it is. Quantizing and attention over int8 happen
inside GroupQueryAttention (ONNX Runtime's `k_scale`, `v_scale`, `PER_CHANNEL`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from export.probes import Probe
from export.proof import Proof, kl_divergence
from lite.bundle.bundle import Bundle
from lite.bundle.manifest import DECODER
from lite.chat.model import Model
from lite.files import replacing

# Mean KL divergence from the float cache, in nats, above which a bundle is refused.
KL_LIMIT = 0.005
# Values beyond what calibration met are clipped: room for those that are a little larger.
MARGIN = 1.1
CODES = 127
# Inputs of GroupQueryAttention between the rotary tables and the scales: position ids, bias, sink.
SKIPPED = ("position_ids", "attention_bias", "head_sink")
# Tokens that go through the cache one by one in the comparison, as in an answer.
DECODED = 16


@dataclass
class Bounds:
    """The largest size of each channel of one layer, float32 `[kv_heads * head_dim]` each."""

    key: np.ndarray
    value: np.ndarray

    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Scales that map these bounds to int8."""
        smallest = np.finfo(np.float32).tiny * CODES
        key, value = (np.maximum(b * MARGIN, smallest) / CODES for b in (self.key, self.value))
        return key.astype(np.float32), value.astype(np.float32)


def to_int8_cache(bundle: Bundle, probes: Sequence[Probe]) -> Proof:
    """Give a bundle's decoder graph an int8 KV cache; its record in the manifest is then old.

    Args:
        bundle: with a float cache.
        probes: prompts to calibrate with; half of what is then compared goes beyond them.

    Returns:
        How far the logits moved.
    """
    model = Model(bundle)
    sequences = [_continued(model, probe) for probe in probes]
    bounds = calibrate(model, sequences)
    exact = [_decoded(model, *sequence) for sequence in sequences]
    rewrite(bundle.path(DECODER), bounds)
    coarse = Model(bundle)
    divergences = [
        kl_divergence(reference, _decoded(coarse, *sequence))
        for reference, sequence in zip(exact, sequences, strict=True)
    ]
    kl = float(np.concatenate(divergences).mean())
    return Proof("int8 KV cache", "float KV cache", "mean KL divergence", kl, KL_LIMIT)


def calibrate(model: Model, sequences: Iterable[tuple[list[int], list[Any]]]) -> list[Bounds]:
    """Bounds of each layer over sequences of ids with their visual memories."""
    found: list[Bounds] = []
    for ids, images in sequences:
        prompt = ids[:-DECODED]
        model.decoder.logits(prompt, images)
        for i, layer in enumerate(model.decoder.export_cache(prompt, images).layers):
            keys, values = layer.astype(np.float32)  # [kv_heads, positions, head_dim] each
            here = Bounds(_rotated_bound(keys), np.abs(values).max(axis=1).reshape(-1))
            if i == len(found):
                found.append(here)
            found[i].key = np.maximum(found[i].key, here.key)
            found[i].value = np.maximum(found[i].value, here.value)
    return found


def rewrite(graph: Path, bounds: Sequence[Bounds]) -> None:
    """Put the scales into the graph file and make its cache int8."""
    model = ir.load(graph)
    layers = iter(bounds)
    for node in [n for n in model.graph if n.op_type == "GroupQueryAttention"]:
        layer = next(layers)
        past = [value.name for value in node.inputs[3:5] if value is not None]
        pairs = zip(past, layer.scales(), strict=True)
        scales = [_constant(f"{name}.scale", values) for name, values in pairs]
        for value in scales:
            model.graph.register_initializer(value)
        first = len(node.inputs) + len(SKIPPED)
        node.resize_inputs(first + len(scales))
        for i, value in enumerate(scales):
            node.replace_input_with(first + i, value)
        for name in ("k_quant_type", "v_quant_type"):
            node.attributes.add(ir.AttrString(name, "PER_CHANNEL"))
        node.attributes.add(ir.AttrInt64("kv_cache_bit_width", 8))
    for end in (*model.graph.inputs, *model.graph.outputs):
        if (end.name or "").startswith(("past.", "present.")):
            end.type = ir.TensorType(ir.DataType.INT8)
    with replacing(graph) as partial:
        ir.save(model, partial)


def _constant(name: str, array: np.ndarray) -> ir.Value:
    tensor = ir.Tensor(array, name=name)
    kind = ir.TensorType(tensor.dtype)
    return ir.Value(name=name, shape=ir.Shape(array.shape), type=kind, const_value=tensor)


def _rotated_bound(keys: np.ndarray) -> np.ndarray:
    """The largest that rotated keys `[heads, T, d]` can become, `[heads * d]`.

    Rotary embedding turns channels i and i + d / 2 into one another with the position, so what
    bounds both at any position is the length of the pair.
    """
    first, second = np.split(keys, 2, axis=-1)
    pairs = np.hypot(first, second).max(axis=1)
    return np.concatenate((pairs, pairs), axis=-1).reshape(-1)


def _continued(model: Model, probe: Probe) -> tuple[list[int], list[Any]]:
    """A probe with its own greedy answer, which calibration does not see, and its memories."""
    images, ids = model.encode_images(probe.pictures), [*probe.ids]
    special = model.tokenizer.suppressed(model.bundle.manifest.sizes.vocab)
    while len(ids) < len(probe.ids) + DECODED:
        logits = model.decoder.logits(ids, images)
        logits[special] = -np.inf
        ids.append(int(logits.argmax()))
    return ids, images


def _decoded(model: Model, ids: list[int], images: list[Any]) -> np.ndarray:
    """Logits after the prompt and each token of the answer, run one by one."""
    model.decoder.logits([1])  # nothing of another sequence is used again
    ends = range(len(ids) - DECODED, len(ids) + 1)
    return np.stack([model.decoder.logits(ids[:end], images) for end in ends])
