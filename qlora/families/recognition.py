"""Which family a folder is of.

Contract: the answer comes from `config.json`'s `model_type`, and nothing is guessed: a folder of a
kind that has no reader is one sentence. A module of `qlora.families` is a reader by having
`MODEL_TYPES`, a function `read(folder, config, lora)`, and `WHOLE`: False if it takes a language
model and a tower that stand elsewhere as two more arguments.
"""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

from lite.errors import BadInput
from qlora import families
from qlora.checkpoints.checks import read_json
from qlora.checkpoints.layouts import refuse_other_layouts
from qlora.checkpoints.lora import refuse_adapter_beside
from qlora.model.weights import ModelWeights


@cache
def readers() -> dict[str, ModuleType]:
    """`model_type` -> the module of `qlora.families` that reads it."""
    names = sorted(module.name for module in pkgutil.iter_modules(families.__path__))
    modules = [import_module(f"qlora.families.{name}") for name in names]
    return {kind: module for module in modules for kind in getattr(module, "MODEL_TYPES", ())}


def read_model(
    folder: Path, lora: Path | None = None, base: Path | None = None, tower: str | None = None
) -> ModelWeights:
    """Open the folder of a whole model, whatever its family.

    Args:
        folder: with a `config.json`.
        lora: an adapter of its language model, merged.
        base: the language model, where the folder holds only what was trained beside it.
        tower: the vision tower, where the folder only names it.

    Raises:
        BadInput: the family is unknown, or see its reader.
    """
    folder = Path(folder)
    refuse_other_layouts(folder)
    path = folder / "config.json"
    config = read_json(path, "model config")
    kind = config.get("model_type")
    reader = readers().get(str(kind))
    if reader is None:
        raise BadInput(
            f"{path} describes a model of type {kind!r}; the families that are read from one "
            f"folder are {', '.join(readers())}, and Multimodal-GPT's parts are given one by one."
        )
    if reader.WHOLE:
        refuse_adapter_beside(folder, lora)
    beside = () if reader.WHOLE else (base, tower)
    if reader.WHOLE and (base is not None or tower is not None):
        raise BadInput(f"{folder} holds a whole model; leave its language model and tower out.")
    weights: ModelWeights = reader.read(folder, config, lora, *beside)
    return weights
