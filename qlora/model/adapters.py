"""LoRA adapters by peft on the language model: put in, saved, read back, and converted.

Contract: adapters go into the modules of `VisionLanguageModel.lang_encoder` in place, so the model
is called as before; the `PeftModel` that comes back is the handle to them. They are float32
whatever the base is, and equal for equal seeds on every device. Nothing here asks the network or
runs a pickle.
"""

from __future__ import annotations

import difflib
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lite.errors import BadInput
from qlora.checkpoints.adapter_config import read_adapter_config
from qlora.checkpoints.checks import some
from qlora.checkpoints.lora import read_lora
from qlora.checkpoints.sources import open_tensors
from qlora.checkpoints.writing import write_tensors
from qlora.model.model import VisionLanguageModel
from qlora.model.nf4 import Linear4bit  # also imports bitsandbytes, before peft does
from qlora.model.spelling import Spelling

if TYPE_CHECKING:
    from peft import PeftModel

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_LAYERS = "model.layers."
_PREFIX = "base_model.model."
_PARAMETER = re.compile(rf"{re.escape(_PREFIX)}(?P<path>.+?)(?P<rest>\.lora_.+)")
_LINEARS = (nn.Linear, Linear4bit)


def add_adapters(
    model: VisionLanguageModel,
    *,
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: Sequence[str] | str,
    rslora: bool = False,
    dora: bool = False,
    seed: int = 0,
) -> PeftModel:
    """Put trainable adapters beside the language model's linear layers.

    Args:
        model: its `lang_encoder` is changed in place; everything but the adapters gets frozen.
        rank, alpha, dropout: as in LoRA (arXiv 2106.09685).
        targets: endings of module paths, such as `q_proj` or `ff.1`; or one regular expression for
            whole paths inside the language model.
        rslora: scale by alpha / sqrt(rank) instead of alpha / rank (arXiv 2312.03732).
        dora: adapt norm and direction of each row (arXiv 2402.09353).
        seed: of the random matrices; the global random state is left as it was.

    Returns:
        The handle for `save_adapter`, `load_adapter`, `train` and `eval`.

    Raises:
        BadInput: a target names no linear layer of the decoder.
    """
    import peft

    check_targets(model.lang_encoder, targets)
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=int(alpha) if float(alpha).is_integer() else alpha,
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=rslora,
        use_dora=dora,
    )
    model.requires_grad_(False)
    # peft draws on the CPU wherever the model is.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # peft 0.21 reads a property that transformers 5.23 has renamed.
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        torch.default_generator.manual_seed(seed)
        return peft.get_peft_model(model.lang_encoder, settings)


def check_targets(language_model: nn.Module, targets: Sequence[str] | str) -> list[str]:
    """The paths of the linear layers that `targets` names, by peft's rules.

    Raises:
        BadInput: one of them names none, or something that cannot be adapted.
    """
    modules = dict(language_model.named_modules())
    linears = [n for n, m in modules.items() if n.startswith(_LAYERS) and isinstance(m, _LINEARS)]
    found: set[str] = set()
    for target in [targets] if isinstance(targets, str) else targets:
        matched = [n for n in modules if _matches(n, target, isinstance(targets, str))]
        if not matched:
            raise BadInput(f"No layer matches the target {target!r}; {_advice(linears, target)}.")
        other = sorted({*matched} - {*linears})
        if other:
            raise BadInput(
                f"The target {target!r} matches {some(other)}, which is no linear layer of the "
                f"decoder; {_advice(linears, target)}."
            )
        found.update(matched)
    return sorted(found)


def _matches(path: str, target: str, is_pattern: bool) -> bool:
    if not is_pattern:
        return path == target or path.endswith(f".{target}")
    try:
        return re.fullmatch(target, path) is not None
    except re.error as error:
        raise BadInput(
            f"The target {target!r} is no regular expression ({error}); correct it, or give a list "
            f"of endings."
        ) from None


def _advice(linears: Sequence[str], target: str) -> str:
    endings = sorted({ending_of(path) for path in linears})
    near = difflib.get_close_matches(target, endings, 3, 0.4)
    return f"the nearest is {near[0]}" if near else f"there are {', '.join(endings)}"


def ending_of(path: str) -> str:
    """The shortest ending that tells what a module is: `q_proj`, or `ff.1` where it is a number."""
    *parents, last = path.split(".")
    return f"{parents[-1]}.{last}" if last.isdecimal() else last


def adapter_parameters(adapters: PeftModel) -> dict[str, nn.Parameter]:
    """The adapter's parameters by our own names, in the form that PEFT's files have."""
    import peft

    named = {n: p for n, p in adapters.named_parameters() if "lora_" in n}
    # save_embedding_layers: "auto" would look for the base model on the hub.
    return peft.get_peft_model_state_dict(adapters, state_dict=named, save_embedding_layers=False)


def save_adapter(adapters: PeftModel, folder: Path, spelling: Spelling | None = None) -> None:
    """Write a PEFT adapter folder; equal adapters give equal bytes.

    Args:
        adapters: see `add_adapters`.
        folder: made if missing.
        spelling: what the folder calls the modules; None for our own names.

    Raises:
        OSError: it cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parameters = _spelled(adapter_parameters(adapters), spelling)
    tensors = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    write_tensors(tensors, folder / TENSORS, {"format": "pt"})
    values = adapters.peft_config["default"].to_dict() | {"inference_mode": True}
    if spelling is not None:
        # Endings such as `q_proj` would be found in the vision tower too.
        matches = (_PARAMETER.fullmatch(name) for name in tensors)
        values["target_modules"] = {match["path"] for match in matches if match}
    # Targets are a set, whose order would change from process to process.
    text = json.dumps(values, indent=2, sort_keys=True, default=sorted)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _spelled(
    parameters: Mapping[str, nn.Parameter], spelling: Spelling | None
) -> dict[str, nn.Parameter]:
    """Parameters under the names that an adapter's file has for them."""
    if spelling is None:
        return dict(parameters)

    def named(name: str) -> str:
        match = _PARAMETER.fullmatch(name)
        assert match is not None
        return f"{_PREFIX}{spelling.module(match['path'])}{match['rest']}"

    return {named(name): parameter for name, parameter in parameters.items()}


def load_adapter(adapters: PeftModel, folder: Path, spelling: Spelling | None = None) -> None:
    """Put the values of a saved adapter into one of the same settings.

    Args:
        adapters: see `add_adapters`.
        folder: as `save_adapter` writes it, under either names.
        spelling: see `save_adapter`.

    Raises:
        BadInput: the folder holds no adapter, or one of other settings or layers.
    """
    saved, present = read_adapter_config(folder / CONFIG), adapters.peft_config["default"]
    for name, theirs, ours in (
        ("rank", saved.r, present.r),
        ("alpha", saved.alpha, present.lora_alpha),
        ("rslora", saved.use_rslora, present.use_rslora),
        ("dora", saved.use_dora, present.use_dora),
    ):
        if theirs != ours:
            raise BadInput(
                f"The adapter in {folder} was trained with {name} {theirs} but this run has {ours};"
                f" use the settings that it was trained with."
            )
    tensors, parameters = open_tensors(folder / TENSORS), adapter_parameters(adapters)
    if {*tensors} != {*parameters}:  # not of our own names, as folders of before have
        parameters = _spelled(parameters, spelling)
    differing = sorted({*tensors} ^ {*parameters}) or [
        name for name, parameter in parameters.items() if tensors.shape(name) != parameter.shape
    ]
    if differing:
        raise BadInput(
            f"The adapter in {folder} and this run differ in {some(differing)}; use the targets "
            f"and the model that it was trained with."
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def to_mmgpt(folder: Path, file: Path) -> None:
    """Convert a PEFT adapter folder to Multimodal-GPT's own layout.

    The file is a dict of `model_state_dict`, with the keys of its training checkpoints (`module.`,
    and `.default` as peft has written since 0.3), and `tuning_config`, as plain values. The
    original app asks for the latter's entries as attributes: wrap it in `mmengine.Config`.

    Raises:
        BadInput: the folder holds no adapter, or one that the layout cannot express: it has one
            rank and one alpha for all modules, and no magnitudes.
    """
    deltas = read_lora(folder).deltas
    if any(delta.magnitude is not None for delta in deltas.values()):
        raise BadInput(
            f"The adapter in {folder} is a DoRA, which Multimodal-GPT's layout cannot hold; keep "
            f"the PEFT folder."
        )
    settings = {(delta.a.shape[0], delta.scaling) for delta in deltas.values()}
    if len(settings) > 1:
        raise BadInput(
            f"The adapter in {folder} has modules of different rank or scaling, which "
            f"Multimodal-GPT's layout cannot hold; keep the PEFT folder."
        )
    ((rank, scaling),) = settings
    alpha = scaling * rank  # the original scales by alpha / rank, also what rsLoRA scaled
    state: dict[str, Any] = {}
    for path, delta in deltas.items():
        for side, matrix in (("A", delta.a), ("B", delta.b)):
            key = f"module.lang_encoder.base_model.model.{path}.lora_{side}.default.weight"
            state[key] = matrix.contiguous()
    tuning = {
        "lora": True,
        "lora_target_modules": sorted({ending_of(path) for path in deltas}),
        "lora_r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "vis": False,
        "unfrozen": [],
    }
    torch.save({"model_state_dict": state, "tuning_config": tuning}, file)
