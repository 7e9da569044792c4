"""What the runtime's tests share: models, a model whose context is soon full, and pictures."""

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentencepiece import SentencePieceProcessor

import lite
from export.bundle import write_bundle
from export.precision import precision
from qlora.families.flamingo import read_flamingo
from qlora.tiny.model import TinySizes, write_checkpoints
from tests.lite.terminal.terminals import Terminal

SMALL_CONTEXT = 192
DOG, CAT, BIRD = (
    np.random.default_rng(seed).integers(0, 256, (70, 60, 3), dtype=np.uint8) for seed in range(3)
)


@pytest.fixture
def model(bundles: Any) -> Callable[..., lite.Model]:
    """`model(variant)`: a model of its own, with an empty KV cache."""
    return lambda variant="base": lite.load(bundles(variant))


@pytest.fixture
def folder(bundles: Any, tmp_path: Path) -> Path:
    """A copy of a bundle to spoil."""
    return Path(shutil.copytree(bundles(), tmp_path / "bundle"))


def with_context(context: int, folder: Path, endless: bool = False) -> None:
    """Write `folder/bundle`, of another context than the fixture's; its answers may never end."""
    made = write_checkpoints(folder, TinySizes(context=context, layers=4, interval=2))
    if endless:
        _never_end(Path(made.llama))
    weights = read_flamingo(Path(made.llama), made.clip, made.clip_weights, Path(made.flamingo))
    write_bundle(weights, folder / "bundle", precision("fp32"), lambda bundle: [])


def _never_end(llama: Path) -> None:
    """Make what could end an answer no likelier than the average token: it is never said."""
    pieces = SentencePieceProcessor(str(llama / "tokenizer.model"))
    names = [pieces.id_to_piece(i) for i in range(len(pieces))]
    ends = [i for i, name in enumerate(names) if name in ("</s>", "<0x23>") or "#" in name]
    path = llama / "pytorch_model.bin"
    tensors = torch.load(path, weights_only=True)
    tensors["lm_head.weight"][ends] = 0.0
    torch.save(tensors, path)


@pytest.fixture(scope="session")
def small_bundle(made_once: Callable[..., Path]) -> Path:
    """A bundle whose context is full after a few turns."""
    return made_once("small", partial(with_context, SMALL_CONTEXT)) / "bundle"


@pytest.fixture(scope="session")
def long_bundle(made_once: Callable[..., Path]) -> Path:
    """A bundle whose answers end when they are cut."""
    return made_once("endless", partial(with_context, 1 << 15, endless=True)) / "bundle"


@pytest.fixture
def small(small_bundle: Path) -> lite.Model:
    return lite.load(small_bundle)


@pytest.fixture
def terminal() -> Iterator[Any]:
    """`terminal(arguments)`: lite-chat in a pseudo-terminal of its own."""
    opened: list[Terminal] = []

    def open_(*arguments: Any, **environment: str) -> Terminal:
        opened.append(Terminal(*arguments, **environment))
        return opened[-1]

    yield open_
    for one in opened:
        one.close()
