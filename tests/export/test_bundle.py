"""An export ends as a whole bundle or as nothing."""

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import export.bundle
import lite
from export.bundle import write_bundle
from export.precision import INT8
from export.proof import Proof
from export.verify import prove
from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput, LiteError
from qlora.families.flamingo import read_flamingo
from tests.conftest import CASES, CHECKPOINTS, LORA
from tests.processes import PROCESSES


@pytest.fixture(scope="module")
def weights():
    return read_flamingo(**CHECKPOINTS, lora=LORA)


def unproved(bundle):
    return []


def test_the_chain_of_proofs_holds_and_is_kept(weights, tmp_path):
    manifest = write_bundle(weights, tmp_path / "b", INT8, lambda b: prove(b, weights, INT8))
    kept = json.loads((tmp_path / "b" / MANIFEST).read_text())["proofs"]
    assert kept == manifest.proofs
    assert [proof["step"] for proof in kept] == [
        "preprocessing",
        "token ids",
        "adapter merged",
        "ONNX fp32",
        "ONNX int8",
        "ONNX int8",
        "second turn",
    ]
    assert all(proof["holds"] for proof in kept)


def test_a_bundle_beyond_its_limit_is_refused_and_nothing_remains(weights, tmp_path):
    with pytest.raises(LiteError, match=r"refused: ONNX int8 against ONNX fp32 .* over the limit"):
        write_bundle(weights, tmp_path / "b", INT8, lambda b: prove(b, weights, INT8, max_kl=0.0))
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_not_a_number_does_not_hold():
    assert not Proof("a", "b", "c", float("nan"), 1.0).holds


def test_an_existing_bundle_is_replaced_only_when_told(weights, tmp_path):
    out = tmp_path / "b"
    write_bundle(weights, out, INT8, unproved)
    before = (out / MANIFEST).read_bytes()
    with pytest.raises(BadInput, match="exists already"):
        write_bundle(weights, out, INT8, unproved)
    write_bundle(weights, out, INT8, unproved, force=True)
    assert (out / MANIFEST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_force_never_deletes_what_is_not_a_bundle(weights, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").touch()
    with pytest.raises(BadInput, match="not a bundle"):
        write_bundle(weights, tmp_path / "photos", INT8, unproved, force=True)
    assert (tmp_path / "photos" / "cat.jpg").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_export_leaves_the_old_bundle_as_it_was(weights, tmp_path, error):
    out = tmp_path / "b"
    write_bundle(weights, out, INT8, unproved)

    def interrupted(bundle):
        raise error

    with pytest.raises((KeyboardInterrupt, OSError)):
        write_bundle(weights, out, INT8, interrupted, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    lite.load(out).score(CASES[2]["ids"])


def test_a_full_disk_is_foreseen(weights, tmp_path, monkeypatch):
    usage = shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000)
    monkeypatch.setattr(export.bundle.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(BadInput, match=r"needs about .* GB and .* free"):
        write_bundle(weights, tmp_path / "b", INT8, unproved)


def export_slowly(out: Path, writing: Any) -> None:
    def wrote(count: int) -> None:
        writing.set()
        time.sleep(0.01)

    write_bundle(read_flamingo(**CHECKPOINTS), out, INT8, lambda bundle: [], wrote=wrote)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_a_killed_export_leaves_nothing_that_opens_and_the_next_one_clears_it(weights, tmp_path):
    out = tmp_path / "b"
    writing = PROCESSES.Event()
    process = PROCESSES.Process(target=export_slowly, args=(out, writing))
    process.start()
    assert writing.wait(60)
    time.sleep(0.2)
    process.kill()
    process.join()
    assert not out.exists()
    (half,) = tmp_path.iterdir()
    with pytest.raises(BadInput, match="not a bundle"):
        lite.load(half)
    write_bundle(weights, out, INT8, unproved)
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
