"""Exporting streams: one tensor in memory, the disk checked before, nothing half made."""

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import export.bundle
import lite
from bench.random_weights import random_weights
from export.bundle import write_bundle
from export.decoder_graph import DecoderGraph
from export.graph import Graph
from export.precision import BLOCKS, INT4, INT8, ROLES, precision
from export.quantize import quantize
from lite.bundle.manifest import DECODER
from lite.errors import BadInput
from qlora.checkpoints.pages import Walk
from qlora.checkpoints.sources import open_tensors
from qlora.families.flamingo import read_flamingo
from tests.conftest import CHECKPOINTS
from tests.processes import PROCESSES

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def resident_file_bytes() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) * 1024


@ON_LINUX
def test_a_walk_through_a_checkpoint_holds_one_tensor_of_it(tmp_path):
    size = 32 << 20
    made = {f"t{i}": torch.full((size // 4,), float(i)) for i in range(6)}
    save_file(made, tmp_path / "model.safetensors")
    walk = Walk(open_tensors(tmp_path / "model.safetensors"))
    before, most = resident_file_bytes(), 0
    for i, name in enumerate(made):
        tensor = walk[name]
        assert tensor.sum() == i * (size // 4)
        most = max(most, resident_file_bytes() - before)
    assert most < 2.5 * size
    assert walk["t1"][0] == 1  # a tensor can be asked for again
    assert tensor[0] == 5  # and one whose pages went is still right


def export_until(folder: Path, moment: int) -> None:
    """Export, and end without any clean-up when `moment` tensors are written."""
    count = 0

    def wrote(values: int) -> None:
        nonlocal count
        count += 1
        if count == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    write_bundle(read_flamingo(**CHECKPOINTS), folder / "b", INT4, lambda bundle: [], wrote=wrote)


@pytest.mark.skipif(sys.platform == "win32", reason="kills with a POSIX signal")
def test_killed_at_any_moment_no_half_bundle_remains(tmp_path):
    for moment in (1, 20, 90, 150):
        process = PROCESSES.Process(target=export_until, args=(tmp_path, moment))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert [path.name for path in tmp_path.iterdir()] == [".b.partial"]
        assert not list(tmp_path.rglob("manifest.json"))
    with pytest.raises(BadInput, match="not a bundle"):
        lite.load(tmp_path / ".b.partial")
    write_bundle(read_flamingo(**CHECKPOINTS), tmp_path / "b", INT4, lambda b: [])
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    lite.load(tmp_path / "b").score([1, 30, 31])


def test_killed_while_replacing_the_old_bundle_comes_back(tmp_path):
    weights, out = read_flamingo(**CHECKPOINTS), tmp_path / "b"
    write_bundle(weights, out, INT8, lambda b: [])
    out.rename(tmp_path / ".b.replaced")  # as between the two renames
    with pytest.raises(BadInput, match="exists already"):
        write_bundle(weights, out, INT8, lambda b: [])
    lite.load(out).score([1, 30, 31])


@pytest.mark.parametrize("kind", ["fp32", "int8", "int4"])
@pytest.mark.parametrize("block", BLOCKS)
def test_the_disk_that_is_asked_for_holds_the_bundle(kind, block, tmp_path):
    """Asked for at least as much as is written, without the fixed sizes of a tiny model's graph."""
    chosen = precision(kind) if kind == "fp32" else precision(kind, block=block)
    weights = random_weights("tiny")
    needed = export.bundle.needed_bytes(weights, chosen)
    manifest = write_bundle(weights, tmp_path / "b", chosen, lambda b: [])
    written = sum(r.size for name, r in manifest.files.items() if name.endswith(".data"))
    tables = 2 * weights.config.llama.max_position_embeddings * weights.config.llama.head_dim * 2
    padding = 4096 * 300  # each tensor starts on a page
    assert written <= needed + tables + padding
    assert needed <= 1.6 * written


@pytest.mark.parametrize("block", BLOCKS)
def test_the_scale_of_least_error_beats_the_extreme_value(block):
    weight = np.random.default_rng(0).standard_normal((64, 512)).astype(np.float32)
    packed = quantize(weight, 4, block)
    error = np.square(packed.dequantize() - weight).sum()
    blocks = weight.reshape(64, -1, block)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1)[..., None], -1)
    scale = extreme / -8
    plain = np.clip(np.rint(blocks / scale), -8, 7) * scale
    assert error < 0.95 * np.square(plain - blocks).sum()


def bits_by_layer(folder, chosen):
    weights = read_flamingo(**CHECKPOINTS)
    with Graph(folder, DECODER, chosen) as graph:
        DecoderGraph(graph, weights.config, weights.tensors).build()
        nodes = [n for n in graph._nodes if n.op_type == "MatMulNBits"]
        return {
            n.inputs[1].name: (n.attributes["bits"].value, n.attributes["block_size"].value)
            for n in nodes
        }


def test_layers_that_are_named_stay_at_8_bits(tmp_path):
    chosen = precision("int4", block=64, sensitive=frozenset({"down_proj"}))
    found = bits_by_layer(tmp_path, chosen)
    down = {kind for name, kind in found.items() if "down_proj" in name}
    other = {kind[0] for name, kind in found.items() if "down_proj" not in name}
    assert {bits for bits, _ in down} == {8}
    assert other == {4}
    assert "lm_head" in ROLES
    assert bits_by_layer(tmp_path, INT4)["lang_encoder.lm_head.codes"][0] == 8
    assert replace(chosen, bits=8).of("down_proj").bits == 8
