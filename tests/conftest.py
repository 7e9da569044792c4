"""What many tests share: the reference's fixtures, and bundles exported from them once.

Two test processes share two cores, so each computes in one thread, and so does every program that
a test starts. What takes long to make is made by one of them for both (`made_once`).
"""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported

import numpy as np
import pytest
import torch
from filelock import FileLock

from export.bundle import write_bundle
from export.precision import precision
from qlora.families.flamingo import read_flamingo

# A shell's background job ignores Ctrl-C and so would every program that a test starts and stops.
signal.signal(signal.SIGINT, signal.default_int_handler)
torch.set_num_threads(1)

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
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`made_once(name, make)`: the folder that `make(folder)` filled, once for all processes.

    Tests read it and leave it as it is.
    """
    base = tmp_path_factory.getbasetemp()
    # pytest-xdist gives each of its processes a folder inside the session's.
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    shared.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = shared / name
        with FileLock(shared / f"{name}.lock"):
            if not folder.exists():
                part = shared / f"{name}.part"
                part.mkdir()
                make(part)
                part.rename(folder)
        return folder

    return made


@pytest.fixture(scope="session")
def bundles(made_once: Callable[..., Path]) -> Callable[..., Path]:
    """`bundles(variant, precision)`: the folder of a bundle, exported at first use."""

    def bundle(variant: str = "base", kind: str = "fp32") -> Path:
        def export(folder: Path) -> None:
            weights = read_flamingo(**CHECKPOINTS, **VARIANTS[variant])
            write_bundle(weights, folder / name, precision(kind), lambda bundle: [])

        name = f"{variant}-{kind}"
        return made_once(f"bundle-{name}", export) / name

    return bundle


@pytest.fixture(scope="session")
def halves(made_once: Callable[..., Path]) -> Callable[[str], Path]:
    """`halves(precision)`: the folder of a bundle with float16 activations, as `bundles`."""

    def bundle(kind: str) -> Path:
        def export(folder: Path) -> None:
            chosen = precision(kind, activations=16)
            write_bundle(read_flamingo(**CHECKPOINTS), folder / kind, chosen, lambda bundle: [])

        return made_once(f"half-{kind}", export) / kind

    return bundle
