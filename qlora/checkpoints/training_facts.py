"""`training.json` of an adapter folder: what its matrices were trained around.

Contract: `qlora-train` writes it, `lite-export` asks it which base the adapter belongs to and which
attend rule. Keys that are not known are passed over, and a folder without it (PEFT's own, the
published files) is of a model that was trained unquantized; what is there must make sense.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from lite.bundle.attend import GATED_RULES, OWN, RULES
from lite.errors import BadInput
from qlora.checkpoints.checks import read_json

TRAINING_FACTS = "training.json"
_COMPUTE = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


@dataclass(frozen=True)
class TrainingFacts:
    """What training held still.

    Attributes:
        nf4: LLaMA and the gated blocks were in NF4; otherwise in `compute`.
        double_quantization: of the NF4 constants.
        compute: the type of everything that is not in 4 bits.
        attend: the attend rule, where the file tells it.
    """

    nf4: bool
    double_quantization: bool
    compute: torch.dtype
    attend: str | None


def write_training_facts(adapter: Path, facts: TrainingFacts) -> None:
    """Write the facts beside an adapter. Raises OSError."""
    values = {
        "base": "nf4" if facts.nf4 else "none",
        "double_quantization": facts.double_quantization,
        "compute": str(facts.compute).removeprefix("torch."),
        "attend": facts.attend,
    }
    (adapter / TRAINING_FACTS).write_text(json.dumps(values, indent=1), encoding="utf-8")


def read_training_facts(adapter: Path) -> TrainingFacts | None:
    """Read the facts beside an adapter; None where nothing tells them.

    Args:
        adapter: a PEFT adapter folder, or any other adapter file.

    Raises:
        BadInput: the file is damaged, or says something that no training of ours does.
    """
    path = adapter / TRAINING_FACTS
    if not path.is_file():
        return None
    raw = read_json(path, "training facts")
    base = raw.get("base")
    double = raw.get("double_quantization", True)
    compute = raw.get("compute", "bfloat16")
    attend = raw.get("attend")
    checks = (
        ("base", base in ("nf4", "none"), '"nf4" or "none"'),
        ("double_quantization", isinstance(double, bool), "true or false"),
        ("compute", compute in [*_COMPUTE], "a float type such as bfloat16"),
        ("attend", attend is None or attend in (*GATED_RULES, OWN), " or ".join(RULES)),
    )
    for key, usable, expected in checks:
        if not usable:
            raise BadInput(
                f"{path} gives {key} as {raw.get(key)!r} instead of {expected}; take the file that "
                f"training wrote, or remove it and say --merge-base and --attend yourself."
            )
    return TrainingFacts(base == "nf4", double, _COMPUTE[compute], attend)
