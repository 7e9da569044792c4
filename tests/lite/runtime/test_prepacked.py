"""The arranged form of the weights computes what the plain one does, or is not used."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lite
from lite.bundle.bundle import Bundle
from lite.bundle.manifest import DECODER
from lite.runtime import prepacked

IDS = [1, 300, 17, 25, 301, 9]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small decoders count as large, and the cache is a new one."""
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path))
    monkeypatch.setattr(prepacked, "MIN_DECODER_BYTES", 0)


@pytest.fixture
def bundle(small: None, bundles: Any) -> Bundle:
    return Bundle.open(bundles("base", "int8"))


def opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The decoder graphs that a model opens."""
    graphs: list[Path] = []
    original = prepacked.Decoder.open

    def listen(*arguments: Any) -> Any:
        graphs.append(arguments[3])
        return original(*arguments)

    monkeypatch.setattr(prepacked.Decoder, "open", listen)
    lite.load(path, threads=1).decoder.logits([1])
    return graphs


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("variant", ["base", "preceding"])
def test_logits_are_those_of_the_plain_graph(
    variant: str, kind: str, bundles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bundles(variant, kind)
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)

    def logits() -> list[np.ndarray]:
        model = lite.load(path, threads=1)
        ids = model.tokenize("<image>What is this?")
        return [model.score(ids, picture), model.score([1]), model.score(IDS)]

    arranged = logits()
    assert [*Path(prepacked.cache_dir("prepacked")).glob(f"*/*/{DECODER}.data")]
    monkeypatch.setenv(prepacked.VARIABLE, "0")
    for one, other in zip(arranged, logits(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_it_is_made_once_and_said_once(bundle: Bundle) -> None:
    said: list[str] = []
    graph = prepacked.prepacked_graph(bundle, notice=said.append)
    assert graph is not None
    made = graph.stat().st_mtime_ns
    assert prepacked.prepacked_graph(bundle, notice=said.append) == graph
    assert graph.stat().st_mtime_ns == made
    assert len(said) == 1


def test_a_model_opens_it(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(bundle.folder, monkeypatch) == [prepacked.prepacked_graph(bundle)]


def test_what_computes_something_else_is_not_kept(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = iter([np.zeros(3), np.array([0, 0, 1e-7])])
    monkeypatch.setattr(prepacked, "_probe", lambda *given: next(results))
    said: list[str] = []
    assert prepacked.prepacked_graph(bundle, notice=said.append) is None
    assert prepacked.prepacked_graph(bundle, notice=said.append) is None  # nor tried again
    assert not [*prepacked.cache_dir("prepacked").rglob(f"{DECODER}*")]
    assert len(said) == 1


def test_another_version_makes_its_own_and_removes_the_old_one(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = prepacked.prepacked_graph(bundle)
    monkeypatch.setattr(prepacked.ort, "__version__", "99.0")
    new = prepacked.prepacked_graph(bundle)
    assert old is not None
    assert new is not None
    assert old.parent.parent == new.parent.parent
    assert new.is_file()
    assert not old.exists()


def test_what_was_half_made_is_cleared_away(bundle: Bundle) -> None:
    graph = prepacked.prepacked_graph(bundle)
    assert graph is not None
    left = graph.parent.rename(graph.parent.with_suffix(".4711"))
    assert prepacked.prepacked_graph(bundle) == graph
    assert not left.exists()


@pytest.mark.parametrize("lacking", ["disk", "memory"])
def test_it_is_not_made_where_there_is_little_room(
    lacking: str, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(bundle.path(name).stat().st_size for name in (DECODER, f"{DECODER}.data"))
    usage = shutil.disk_usage("/")._replace(free=9 * size)
    if lacking == "disk":
        monkeypatch.setattr(prepacked.shutil, "disk_usage", lambda path: usage)
    else:
        monkeypatch.setattr(prepacked, "memory_bytes", lambda: 2 * size)
    assert prepacked.prepacked_graph(bundle) is None


def test_a_cache_that_cannot_be_written_only_costs_time(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "file"))
    assert opened(bundle.folder, monkeypatch) == [None]


def test_small_models_and_other_devices_have_none(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prepacked.prepacked_graph(bundle, "cuda") is None
    monkeypatch.setattr(prepacked, "MIN_DECODER_BYTES", 1 << 40)
    assert prepacked.prepacked_graph(bundle) is None
