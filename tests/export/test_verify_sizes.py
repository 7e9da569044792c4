"""Models of other shapes than the fixtures': the graphs equal torch whatever the sizes."""

import json
from pathlib import Path

import pytest

from export.bundle import write_bundle
from export.precision import precision
from export.verify import prove
from qlora.families.flamingo import read_flamingo
from qlora.tiny.model import TinySizes, write_checkpoints

SIZES = {
    "12 layers of width 96, heads of 24": TinySizes(
        hidden=96, layers=12, feed_forward=256, vision_width=48, image_size=42
    ),
    "grouped queries": TinySizes(hidden=64, heads=8, kv_heads=2),
    "heads of 20": TinySizes(hidden=60, heads=3, kv_heads=3, feed_forward=100),
    "a block before every layer": TinySizes(layers=3, interval=1, vision_layers=1),
    "one block": TinySizes(layers=5, interval=5, vision_head_width=32, patch=28),
    "a convolutional stem": TinySizes(stem=((16, 2), (24, 1), (32, 7)), vision_layers=1),
    "a vocabulary of 333": TinySizes(vocabulary=333, context=256),
}


def read(folder: Path, sizes: TinySizes, attend: str):
    c = write_checkpoints(folder, sizes, seed=1)
    parts = (Path(c.llama), c.clip, c.clip_weights, Path(c.flamingo), Path(c.lora))
    return read_flamingo(*parts, attend=attend)


@pytest.mark.parametrize("attend", ["following", "preceding"])
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind", ["fp32", "int8"])
def test_every_proof_holds(name, attend, kind, tmp_path):
    weights, chosen = read(tmp_path, SIZES[name], attend), precision(kind)
    manifest = write_bundle(weights, tmp_path / "b", chosen, lambda b: prove(b, weights, chosen))
    assert len(manifest.proofs) >= 4
    assert all(proof["holds"] for proof in manifest.proofs)


def test_the_tiny_model_is_the_same_for_the_same_seed(tmp_path):
    digests = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        weights = read(folder, TinySizes(layers=4), "following")
        manifest = write_bundle(weights, folder / "bundle", precision("int8"), lambda b: [])
        digests.append(json.dumps(manifest.to_json()["files"]))
    assert digests[0] == digests[1]
