"""PEFT's `adapter_config.json`: rank and scaling of each module.

Contract: only what PEFT calls LoRA or DoRA on linear layers passes. Every setting that is neither
known to leave the merged weights alone nor switched off is refused by name, so a setting that a
later PEFT invents cannot be missed.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite.errors import BadInput
from qlora.checkpoints.checks import read_json, some

# Settings of peft 0.21's LoraConfig that describe training, or that matter only beside another
# setting which is refused.
_NEUTRAL = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "runtime_config",
    "target_modules",
    "task_type",
    "use_dora",
    "use_rslora",
}
# Other initialisations (PiSSA, OLoRA, LoftQ, ...) change the base weights when training starts,
# so that the adapter alone is not the difference to the original model.
_PLAIN_INIT = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class AdapterConfig:
    """Rank and scaling by module path, as PEFT resolves them."""

    r: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    use_rslora: bool
    use_dora: bool = False

    def rank(self, module: str) -> int:
        """The rank that the configuration gives to the module."""
        return _by_pattern(self.rank_pattern, module, self.r)

    def scaling(self, module: str) -> float:
        """alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732)."""
        r = self.rank(module)
        alpha = _by_pattern(self.alpha_pattern, module, self.alpha)
        return alpha / (math.sqrt(r) if self.use_rslora else r)


def read_adapter_config(path: Path) -> AdapterConfig:
    """Read and vet an `adapter_config.json`.

    Raises:
        BadInput: it is missing, not JSON, not of LoRA, or asks for more than LoRA or DoRA.
    """
    raw = read_json(path, "adapter config")
    if raw.get("peft_type") != "LORA":
        raise BadInput(
            f"{path} describes an adapter of type {raw.get('peft_type')!r}; give a LoRA adapter."
        )
    refused = [
        name
        for name, value in raw.items()
        if name not in _NEUTRAL and value not in (None, False, 0, "", [], {})
    ]
    if raw.get("bias", "none") != "none":
        refused.append(f"bias={raw['bias']!r}")
    if raw.get("init_lora_weights") not in _PLAIN_INIT:
        refused.append(f"init_lora_weights={raw['init_lora_weights']!r}")
    if refused:
        raise BadInput(
            f"{path} sets {some(refused)}, which changes more than LoRA matrices do; train "
            f"or convert the adapter without it."
        )
    return _parse(raw, path)


def _parse(raw: dict[str, Any], path: Path) -> AdapterConfig:
    ranks, alphas = raw.get("rank_pattern") or {}, raw.get("alpha_pattern") or {}
    r, alpha = raw.get("r", 0), raw.get("lora_alpha")
    usable = (
        isinstance(ranks, dict)
        and isinstance(alphas, dict)
        and all(type(rank) is int and rank > 0 for rank in (r, *ranks.values()))
        and all(_is_number(value) for value in (alpha, *alphas.values()))
        and all(_is_pattern(pattern) for pattern in (*ranks, *alphas))
    )
    if not usable:
        raise BadInput(
            f"{path} has no usable r, lora_alpha, rank_pattern or alpha_pattern; download the "
            f"adapter again."
        )
    rslora, dora = bool(raw.get("use_rslora")), bool(raw.get("use_dora"))
    return AdapterConfig(r, float(raw["lora_alpha"]), ranks, alphas, rslora, dora)


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def _is_pattern(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


def _by_pattern(patterns: Mapping[str, Any], module: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of the path at a dot.

    Must give what `peft.utils.other.get_pattern_key` gives.
    """
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default
