"""Adapters of whole models, whichever way their trainers saw the model.

Contract: every update is given by what it changes in `qlora.model.VisionLanguageModel`: a module of
the language model, or a parameter of another part. What has no such place is refused by its name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lite.errors import BadInput
from qlora.checkpoints.lora import LoraCheckpoint, LoraDelta, read_lora
from qlora.checkpoints.translation import Translated

# Paths of the language model's linear layers as the families' adapters spell them.
_LINEAR = re.compile(
    r"(?:model\.)?(?:language_model\.)?(?:model\.)?layers\.(\d+)\."
    r"(?:decoder_layer\.)?((?:self_attn|mlp)\.\w+)"
)
_HEAD = re.compile(r"(?:language_model\.)?lm_head")


@dataclass(frozen=True)
class Outside:
    """A part outside the language model that an adapter may change.

    Attributes:
        ours: the part's name in our model.
        prefixes: what its modules are called before the names of the folder's tensors, longest
            first.
        tensors: its parameters.
        unused: whether a module of the part is never run, so that its update changes nothing.
    """

    ours: str
    prefixes: tuple[str, ...]
    tensors: Translated
    unused: Callable[[str], bool] = lambda module: False

    def inside(self, module: str) -> str | None:
        """The module's path inside the part; None if it is of another part."""
        for prefix in self.prefixes:
            if module == prefix or module.startswith(f"{prefix}.") or not prefix:
                return module.removeprefix(prefix).removeprefix(".")
        return None

    def find(self, path: str) -> tuple[str, int] | None:
        """The parameter that the module's weight is, or is a part of, and which part."""
        theirs = f"{path}.weight".removeprefix(".")
        for name, kept in self.tensors.kept.items():
            parts = (kept,) if isinstance(kept, str) else kept.parts
            if theirs in parts:
                return name, parts.index(theirs)
        return None


def adapter(
    path: Path | None,
    block: Callable[[str], str | None] = lambda module: None,
    outside: Sequence[Outside] = (),
) -> LoraCheckpoint | None:
    """A LoRA of a model's linear layers.

    Args:
        path: of the adapter.
        block: from a module that is not spelled like LLaMA's, for example of a gated block, to
            ours; None for others.
        outside: parts beside the language model.

    Raises:
        BadInput: it is none, or adapts something that this model does not have.
    """
    if path is None:
        return None
    read = read_lora(path)
    deltas: dict[str, LoraDelta] = {}
    shares: dict[str, tuple[Outside, str, dict[int, LoraDelta]]] = {}
    for module, delta in read.deltas.items():
        ours = _in_language_model(module, block)
        if ours is not None:
            deltas[ours] = delta
        elif (place := _place(module, outside)) is not None:
            part, name, number = place
            shares.setdefault(f"{part.ours}.{name}", (part, name, {}))[2][number] = delta
        elif not any(part.unused(part.inside(module) or "") for part in outside):
            raise BadInput(
                f"The LoRA in {path} adapts {module}, which is no linear layer of this model; give "
                f"one of a model of the same kind and sizes."
            )
    for ours, (part, name, found) in shares.items():
        deltas[ours] = _joined(part.tensors, name, found, path)
    return LoraCheckpoint(deltas, read.path)


def _in_language_model(module: str, block: Callable[[str], str | None]) -> str | None:
    ours = block(module)
    if ours is not None:
        return ours
    if _HEAD.fullmatch(module):
        return "lm_head"
    match = _LINEAR.fullmatch(module)
    return f"model.layers.{match[1]}.decoder_layer.{match[2]}" if match else None


def _place(module: str, outside: Sequence[Outside]) -> tuple[Outside, str, int] | None:
    for part in outside:
        path = part.inside(module)
        found = None if path is None else part.find(path)
        if found is not None:
            return part, *found
    return None


def _joined(tensors: Translated, name: str, found: dict[int, LoraDelta], path: Path) -> LoraDelta:
    """The update of a parameter that the folder keeps in parts, of the updates of these parts.

    Their ranks stand beside each other: `B A` of the whole has each part's own in its rows.
    """
    kept, shape = tensors.kept[name], tensors.shape(name)
    if isinstance(kept, str):
        return found[0]
    rows, columns = kept.part_shape(shape)[-2:]
    ranks = [delta.a.shape[0] for delta in found.values()]
    sides = {number: torch.zeros(rows, sum(ranks)) for number in range(len(kept.parts))}
    start = 0
    for number, delta in found.items():
        if delta.magnitude is not None:
            raise BadInput(
                f"The LoRA in {path} is a DoRA of {kept.parts[number]}, which is one matrix with "
                f"others here; train it as a plain LoRA, or leave that module out."
            )
        if (delta.b.shape[0], delta.a.shape[1]) != (rows, columns):
            raise BadInput(
                f"The LoRA in {path} for {kept.parts[number]} has shape "
                f"{[delta.b.shape[0], delta.a.shape[1]]} but the weight has {[rows, columns]}; use "
                f"the LoRA of a model of the same sizes."
            )
        rank = delta.a.shape[0]
        sides[number][:, start : start + rank] = delta.scaling * delta.b.float()
        start += rank
    a = torch.cat([delta.a.float() for delta in found.values()])  # [ranks, in]
    b = kept.recipe((shape[0], sum(ranks)))
    assert b.make is not None or len(sides) == 1
    whole = b.make(*sides.values()) if b.make else sides[0]  # [out, ranks]
    return LoraDelta(a, whole, 1.0)
