"""What many tests share: the reference's fixtures, and bundles exported from them once."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.bundle import write_bundle
from export.precision import precision
from qlora.families.flamingo import read_flamingo

# A shell's background job ignores Ctrl-C and so would every program that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)

FIXTURE = Path(__file__).parent / "fixtures" / "mmgpt-tiny"
VOCAB = 400  # the reference's last three columns are random, see fixtures/README.md


@dataclass(frozen=True)
class Case:
    """One prompt of the reference, and what it computed."""

    number: int
    text: str
    images: list[Path]
    expected: dict[str, np.ndarray]

    def __getitem__(self, name: str) -> np.ndarray:
        return self.expected[f"{name}_{self.number}"]


def reference_cases() -> list[Case]:
    prompts = json.loads((FIXTURE / "cases.json").read_text())["prompts"]
    expected = dict(np.load(FIXTURE / "expected.npz"))
    return [
        Case(i, p["text"], [FIXTURE / "images" / f"{n}.png" for n in p["images"]], expected)
        for i, p in enumerate(prompts)
    ]


CASES = reference_cases()
CHECKPOINTS: dict[str, Any] = {
    "llama": FIXTURE / "llama",
    "clip_config": str(FIXTURE / "clip" / "tiny-clip-64.json"),
    "clip": str(FIXTURE / "clip" / "open_clip_pytorch_model.bin"),
    "flamingo": FIXTURE / "openflamingo-checkpoint.pt",
}
LORA = FIXTURE / "mmgpt-lora.pt"
# What the reference computed: name in expected.npz -> how to build that model.
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "lora": {"lora": LORA},
    "preceding": {"attend": "preceding"},
}


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Tests neither read nor fill the user's cache and history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MMGPT_LITE_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("MMGPT_LITE_DATA", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`bundles(variant, precision)`: the folder of a bundle, exported at first use."""
    made: dict[tuple[str, str], Path] = {}

    def bundle(variant: str = "base", kind: str = "fp32") -> Path:
        if (variant, kind) not in made:
            out = tmp_path_factory.mktemp("bundles") / f"{variant}-{kind}"
            weights = read_flamingo(**CHECKPOINTS, **VARIANTS[variant])
            write_bundle(weights, out, precision(kind), lambda bundle: [])
            made[variant, kind] = out
        return made[variant, kind]

    return bundle


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`halves(precision)`: the folder of a bundle with float16 activations, as `bundles`."""
    made: dict[str, Path] = {}

    def bundle(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("halves") / kind
            chosen = precision(kind, activations=16)
            write_bundle(read_flamingo(**CHECKPOINTS), made[kind], chosen, lambda bundle: [])
        return made[kind]

    return bundle
