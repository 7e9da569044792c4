"""Which family a folder is of.

Contract: the answer comes from `config.json`'s `model_type`, and nothing is guessed: a folder of a
kind that has no reader is one sentence.
"""

from __future__ import annotations

from pathlib import Path

from lite.errors import BadInput
from qlora.checkpoints.checks import read_json
from qlora.families import idefics, llava, mllama, owl
from qlora.model.weights import ModelWeights

_WHOLE = {
    owl.MODEL_TYPE: owl.read_owl,
    idefics.MODEL_TYPE: idefics.read_idefics,
    mllama.MODEL_TYPE: mllama.read_mllama,
}
KNOWN = (*_WHOLE, *llava.MODEL_TYPES)


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
    path = folder / "config.json"
    config = read_json(path, "model config")
    kind = config.get("model_type")
    if kind in llava.MODEL_TYPES:
        return llava.read_llava(folder, config, lora, base, tower)
    if kind not in _WHOLE:
        raise BadInput(
            f"{path} describes a model of type {kind!r}; the families that are read from one "
            f"folder are {', '.join(KNOWN)}, and Multimodal-GPT's parts are given one by one."
        )
    if base is not None or tower is not None:
        raise BadInput(f"{folder} holds a whole model; leave its language model and tower out.")
    return _WHOLE[kind](folder, config, lora)
