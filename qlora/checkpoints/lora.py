"""LoRA adapters: Multimodal-GPT's own files, and adapter folders as PEFT writes them.

Contract: `read_lora` gives every low-rank update by the path of the module it adapts inside the
language model, such as `model.layers.3.decoder_layer.self_attn.q_proj`. Whatever else is stored
beside the two matrices (and DoRA's magnitudes) and would change weights (biases, fully trained
modules) is refused.

A Multimodal-GPT file says its rank and alpha in `tuning_config`. Where that is missing, alpha is
taken to equal the rank, as in the published run (16 and 16).
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lite.errors import BadInput
from qlora.checkpoints.adapter_config import read_adapter_config
from qlora.checkpoints.checks import WEIGHT_DTYPES, same_content, some
from qlora.checkpoints.pickles import read_pickle, state_dict_of
from qlora.checkpoints.sources import open_tensors
from qlora.checkpoints.views import without_module

_MMGPT_KEY = re.compile(
    r"lang_encoder\.base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])(\.default)?\.weight"
)
_PEFT_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<side>[AB])(\.default)?\.weight")
_DORA_KEY = re.compile(
    rf"{_PEFT_KEY.pattern}|base_model\.model\.(?P<dora>.+)\.lora_magnitude_vector"
)
_MAGNITUDE = "magnitude"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
# OpenFlamingo v0 names every block a second time.
_ALIAS = re.compile(r"gated_cross_attn_layers\.(\d+)\.(.+)")
_BLOCK = r"model.layers.\1.gated_cross_attn_layer.\2"


@dataclass(frozen=True)
class LoraDelta:
    """One low-rank update: V = W + scaling * B @ A, and with DoRA its rows brought to given norms.

    Attributes:
        a: `[r, in]`.
        b: `[out, r]`.
        scaling: alpha / r, or alpha / sqrt(r) for rsLoRA.
        magnitude: DoRA's `[out]`, the norm of each row of the merged matrix; None for LoRA.
    """

    a: torch.Tensor
    b: torch.Tensor
    scaling: float
    magnitude: torch.Tensor | None = None

    def delta(self) -> torch.Tensor:
        """`scaling * b @ a`, `[out, in]` float32; what LoRA adds, and DoRA before it rescales."""
        return self.scaling * (self.b.float() @ self.a.float())

    def merged(self, weight: torch.Tensor) -> torch.Tensor:
        """The adapted matrix for the base `weight [out, in]`, in float32.

        DoRA (arXiv 2402.09353, eq. 5) as peft computes it (`tuners/lora/dora.py`): magnitude * V /
        ||V||, one norm and one magnitude for each output.
        """
        directions = weight.float() + self.delta()
        if self.magnitude is None:
            return directions
        scale = self.magnitude.float() / torch.linalg.vector_norm(directions, dim=1)
        return scale[:, None] * directions


@dataclass(frozen=True)
class LoraCheckpoint:
    """What `read_lora` found: the updates by module path, and where they come from."""

    deltas: Mapping[str, LoraDelta]
    path: Path


def read_lora(path: Path) -> LoraCheckpoint:
    """Read a Multimodal-GPT LoRA file, or a PEFT adapter folder.

    Raises:
        BadInput: no adapter is there, it is damaged or incomplete, its configuration disagrees
            with its matrices, or it holds more than LoRA matrices.
    """
    path = Path(path)
    if path.is_dir():
        _refuse_other_folders(path)
        return _read_peft(path)
    if path.suffix == ".safetensors":
        raise BadInput(
            f"{path} is one file of a PEFT adapter; give its folder, which also holds "
            f"adapter_config.json."
        )
    return _read_mmgpt(path)


def _refuse_other_folders(folder: Path) -> None:
    """Say what a folder without an adapter is."""
    if (folder / ADAPTER_CONFIG).exists():
        return
    inside = sorted(found.parent for found in folder.glob(f"*/{ADAPTER_CONFIG}"))
    if inside:
        raise BadInput(
            f"{folder} is no adapter itself but holds {some(p.name for p in inside)}; give "
            f"{inside[-1]}."
        )
    if (folder / "config.json").exists():
        raise BadInput(f"{folder} holds a model instead of an adapter; give it as the model.")


def refuse_adapter_beside(folder: Path, lora: Path | None) -> None:
    """Refuse a folder of a model in which an adapter lies too, unless that one is merged.

    transformers applies it, so leaving it out would be another model.

    Raises:
        BadInput: there is one.
    """
    beside = [n for n in (ADAPTER_CONFIG, *ADAPTER_WEIGHTS) if (folder / n).exists()]
    if beside and (lora is None or lora.resolve() != folder.resolve()):
        raise BadInput(
            f"{folder} holds an adapter ({some(beside)}) beside the model's weights; give --lora "
            f"{folder} to merge it, or move it away."
        )


def _read_mmgpt(path: Path) -> LoraCheckpoint:
    loaded = read_pickle(path)
    tuning: object = None
    if isinstance(loaded, dict):
        tuning = loaded.pop("tuning_config", None)
    rank, alpha = _tuning(tuning, path)
    tensors = state_dict_of(loaded, path)

    def scaling(module: str, r: int) -> float:
        if rank is not None and rank != r:
            raise BadInput(
                f"{path} says lora_r {rank} in its tuning_config but {module} has rank {r}; give "
                f"the file as training wrote it."
            )
        return 1.0 if alpha is None else alpha / r

    named = {without_module(name): tensor for name, tensor in tensors.items()}
    if len(named) < len(tensors):
        raise BadInput(f"{path} holds tensors with and without `module.`; keep one of each.")
    return LoraCheckpoint(_pair(named, _MMGPT_KEY, scaling, path), path)


def _tuning(tuning: object, path: Path) -> tuple[int | None, float | None]:
    """`lora_r` and `lora_alpha`, or None twice if the file has no tuning_config."""
    # Multimodal-GPT's training script saves the whole recipe here, one level above its app's.
    if isinstance(tuning, dict) and isinstance(tuning.get("tuning_config"), dict):
        tuning = tuning["tuning_config"]
    if tuning is None:
        return None, None
    rank = tuning.get("lora_r") if isinstance(tuning, dict) else None
    alpha = tuning.get("lora_alpha") if isinstance(tuning, dict) else None
    if type(rank) is not int or type(alpha) not in (int, float) or not math.isfinite(alpha):  # type: ignore[arg-type]
        raise BadInput(
            f"{path} has a tuning_config without a usable lora_r and lora_alpha; give the file as "
            f"training wrote it."
        )
    return rank, alpha


def _read_peft(folder: Path) -> LoraCheckpoint:
    config = read_adapter_config(folder / ADAPTER_CONFIG)
    weights = next(
        (file for name in ADAPTER_WEIGHTS if (file := folder / name).is_file()),
        None,
    )
    if weights is None:
        raise BadInput(
            f"{folder} has neither adapter_model.safetensors nor adapter_model.bin; give a "
            f"complete adapter folder."
        )

    def scaling(module: str, r: int) -> float:
        if config.rank(module) != r:
            raise BadInput(
                f"{folder / ADAPTER_CONFIG} gives {module} the rank {config.rank(module)} "
                f"but {weights.name} has {r}; give both files of one adapter."
            )
        return config.scaling(module)

    tensors = dict(open_tensors(weights))
    deltas = _pair(tensors, _DORA_KEY if config.use_dora else _PEFT_KEY, scaling, weights)
    for module, delta in deltas.items():
        if config.use_dora and delta.magnitude is None:
            raise BadInput(
                f"{folder / ADAPTER_CONFIG} says use_dora but {module} has no "
                f"lora_magnitude_vector in {weights.name}; give both files of one adapter."
            )
    return LoraCheckpoint(deltas, folder)


def _pair(
    tensors: Mapping[str, torch.Tensor],
    key: re.Pattern[str],
    scaling: Callable[[str, int], float],
    path: Path,
) -> dict[str, LoraDelta]:
    """Match every A with its B (and magnitudes), under canonical module paths."""
    sides: dict[str, dict[str, torch.Tensor]] = {}
    strange = []
    for name, tensor in tensors.items():
        match = key.fullmatch(name)
        if match is None:
            strange.append(name)
            continue
        side, module = match["side"] or _MAGNITUDE, match["path"] or match["dora"]
        if side in sides.setdefault(module, {}):
            raise BadInput(f"{path} holds {name} under two spellings; remove one of them.")
        sides[module][side] = tensor
    if strange:
        raise BadInput(
            f"{path} holds {some(strange)}, which is no LoRA matrix of the language model; give a "
            f"file that holds only the LoRA."
        )
    if not sides:
        raise BadInput(f"{path} holds no LoRA matrices; give the adapter that training wrote.")
    deltas: dict[str, LoraDelta] = {}
    for module, pair in sides.items():
        _check_pair(module, pair, path)
        scale = scaling(module, pair["A"].shape[0])
        delta = LoraDelta(pair["A"], pair["B"], scale, pair.get(_MAGNITUDE))
        alias = _ALIAS.fullmatch(module)  # IDEFICS has such modules too, inside `model.`
        canonical = alias.expand(_BLOCK) if alias else module
        if canonical in deltas and not _same(deltas[canonical], delta):
            raise BadInput(
                f"{path} holds {canonical} under two names with different values although they "
                f"are one parameter; give the file as training wrote it."
            )
        deltas[canonical] = delta
    return deltas


def _check_pair(module: str, pair: dict[str, Any], path: Path) -> None:
    for side in "AB":
        if side not in pair:
            raise BadInput(
                f"{path} lacks lora_{side} of {module}; give the file as training wrote it."
            )
        if pair[side].ndim != 2 or 0 in pair[side].shape or pair[side].dtype not in WEIGHT_DTYPES:
            raise BadInput(
                f"{path} has a lora_{side} of {module} with shape {list(pair[side].shape)} and "
                f"type {pair[side].dtype} where a float matrix is expected; give a LoRA of "
                f"linear layers."
            )
    for part, matrix in pair.items():
        if not matrix.isfinite().all():
            raise BadInput(
                f"{path} has a {part if part == _MAGNITUDE else f'lora_{part}'} of {module} with "
                f"values that are not finite, so its training failed; give an earlier checkpoint."
            )
    if pair["A"].shape[0] != pair["B"].shape[1]:
        raise BadInput(
            f"{path} has a lora_A {list(pair['A'].shape)} and a lora_B {list(pair['B'].shape)} of "
            f"{module} whose ranks differ; give the file as training wrote it."
        )
    magnitude = pair.get(_MAGNITUDE)
    if magnitude is not None and (
        magnitude.shape != pair["B"].shape[:1] or magnitude.dtype not in WEIGHT_DTYPES
    ):
        raise BadInput(
            f"{path} has a lora_magnitude_vector of {module} with shape {list(magnitude.shape)} "
            f"and type {magnitude.dtype} where {pair['B'].shape[0]} floats are expected; give the "
            f"file as training wrote it."
        )


def _same(first: LoraDelta, second: LoraDelta) -> bool:
    """Only files of Multimodal-GPT name a module twice, and those have no magnitudes."""
    return (
        first.scaling == second.scaling
        and same_content(first.a, second.a)
        and same_content(first.b, second.b)
    )
