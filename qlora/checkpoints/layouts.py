"""Folders of weights that are not in the layout of Hugging Face, and files that no reader uses.

Contract: what a person gives is used, or refused by its name; these helpers only look at names.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from lite.errors import BadInput
from qlora.checkpoints.checks import read_json, some
from qlora.checkpoints.views import TensorSource

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
# What trainers write beside weights, and the same weights in other formats.
_NEUTRAL = re.compile(
    r"(optimizer|scheduler|scaler|rng_state|random_states|training_args|trainer_state)\b.*|"
    r"rng_state_\d+\..*|random_states_\d+\..*|"
    r"consolidated[.\-].*|tf_model\..*|flax_model\..*|"
    r"(adapter_model)\..*"  # see `qlora.checkpoints.lora.refuse_adapter_beside`
)
# Names of what quantizers store: bitsandbytes in 4 and 8 bits, GPTQ and AWQ, compressed-tensors.
_QUANTIZED = (
    (".absmax", ".quant_map", ".SCB", ".weight_format"),
    (".qweight", ".qzeros", ".g_idx"),
    (".weight_packed", ".weight_scale"),
)
_QUANTIZERS = ("bitsandbytes", "GPTQ or AWQ", "compressed-tensors")


def refuse_other_layouts(folder: Path) -> None:
    """Say what a folder without a `config.json` is, where that can be told.

    Raises:
        BadInput: an adapter, or Meta's own layout.
    """
    if (folder / "config.json").exists() or not folder.is_dir():
        return
    adapter = folder / "adapter_config.json"
    if adapter.exists():
        base = read_json(adapter, "adapter config").get("base_model_name_or_path")
        named = f" ({base})" if isinstance(base, str) and base.isprintable() else ""
        raise BadInput(
            f"{folder} holds an adapter instead of a model; give it as the LoRA (--lora), and the "
            f"model that it was trained on{named} as the model."
        )
    if any(folder.glob("consolidated.*.pth")) or (folder / "params.json").exists():
        raise BadInput(
            f"{folder} is in Meta's own layout (consolidated.*.pth); give the same model in the "
            f"layout of Hugging Face, such as transformers' convert_llama_weights_to_hf.py makes."
        )


def refuse_unused(folder: Path, used: Collection[str]) -> None:
    """Refuse weights that lie in a folder and are not read.

    Args:
        folder: of a model.
        used: names of files that are read.

    Raises:
        BadInput: others are there, apart from a trainer's state and other formats of the same.
    """
    suffixes = {Path(name).suffix for name in used if "." in name}
    left = [
        path.name
        for path in sorted(folder.iterdir())
        if path.suffix in _WEIGHTS
        and path.name not in used
        and not _NEUTRAL.fullmatch(path.name)
        and not _other_format(path, suffixes)
    ]
    if left:
        raise BadInput(
            f"{folder} holds {some(left)} beside the weights that are read, and nothing tells what "
            f"for; move away what does not belong to the model."
        )


def _other_format(path: Path, used: Collection[str]) -> bool:
    return path.name.startswith(("model", "pytorch_model")) and path.suffix not in used


def refuse_quantized(source: TensorSource) -> None:
    """Refuse weights that were quantized when they were saved.

    Raises:
        BadInput: with the quantizer's name.
    """
    for name in source:
        for endings, quantizer in zip(_QUANTIZED, _QUANTIZERS, strict=True):
            if name.endswith(endings) or f".weight.{quantizer}__" in name:
                raise BadInput(
                    f"{source.where(name)} holds weights that {quantizer} quantized ({name}), "
                    f"which cannot be read; give the original weights in 16 or 32 bits."
                )
