"""Memory and time of exporting, from checkpoints on disk in the layouts that people have.

Contract: random checkpoints of a shape of the first family (LLaMA in shards, CLIP, OpenFlamingo;
float16) are written once and kept, and `lite-export` reads them. A model of another family is
exported as its random weights are made, a tensor at a time, which takes longer than reading. Each
precision has a process of its own, and no proofs, which need the memory to run the bundle. Peak
memory is that process's largest resident set, with Python, torch, and the pages of the checkpoints
that it has mapped.

Example: lite-bench export --shape 9b --precision int4 -o bench/results/export-9b.json
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2 as proto
from torch import Tensor

from bench.random_weights import random_weights
from bench.report import about, write_report
from bench.shapes import SHAPES, config_of
from lite.cli import run, say
from lite.errors import LiteError
from lite.userdirs import cache_dir
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.injection.gated import Gated
from qlora.model.weights import ModelWeights, llama_name
from qlora.tiny.bpe import train_bpe
from qlora.tiny.model import CORPUS

# Bytes of a shard, about what transformers writes by default.
SHARD = 5_000_000_000
PIECES = 400
# The first of the characters that Unicode leaves to everybody's own use.
PRIVATE = 0xF0000
DONE = "complete"
# Runs lite-export and says what it took at most.
FROM_DISK = """
import sys
from bench.machine import peak_bytes
from export.commands.export import command
command.main([*sys.argv[1:], "--no-proof"], standalone_mode=False)
print(peak_bytes())
"""
# The same for random weights: shape, precision, and where the bundle goes.
AS_MADE = """
import sys
from pathlib import Path
from bench.machine import peak_bytes
from bench.random_weights import random_weights
from export.bundle import write_bundle
from export.precision import precision
shape, bits, bundle = sys.argv[1:]
write_bundle(random_weights(shape), Path(bundle), precision(bits), lambda opened: [])
print(peak_bytes())
"""


@click.command(name="export")
@click.option("--shape", type=click.Choice(SHAPES), default="9b", show_default=True)
@click.option(
    "--precision",
    "precisions",
    multiple=True,
    type=click.Choice(["int8", "int4"]),
    default=("int8", "int4"),
    show_default=True,
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def command(shape: str, precisions: tuple[str, ...], output: Path | None) -> None:
    """Measure exporting a model of random weights."""
    report = about(("torch", "onnx", "safetensors")) | {"shape": shape}
    if isinstance(config_of(shape).injection, Gated):
        folder = cache_dir("bench") / f"{shape}-checkpoints"
        write_checkpoints(random_weights(shape), folder)
        report["read_gb"] = round(_size(folder) / 1e9, 2)
        report["exports"] = {name: _from_disk(folder, name) for name in precisions}
    else:
        report["exports"] = {name: _as_made(shape, name) for name in precisions}
    if output:
        write_report(report, output)
    click.echo(json.dumps(report, indent=1))


def write_checkpoints(weights: ModelWeights, folder: Path) -> None:
    """Write a model as four parts; at once if all were written before.

    Args:
        weights: of the first family.
        folder: gets `llama/`, `clip.json`, `clip.safetensors` and `flamingo.safetensors`.
    """
    if (folder / DONE).exists():
        return
    say(f"Making {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    config = weights.config
    assert isinstance(config.encoder, ClipEncoder)
    llama = folder / "llama"
    llama.mkdir(parents=True)
    (llama / "tokenizer.model").write_bytes(_tokenizer(config.llama.vocab_size))
    config.llama.architectures = ["LlamaForCausalLM"]
    config.llama.save_pretrained(llama)
    (folder / "clip.json").write_text(json.dumps(config.encoder.clip), encoding="utf-8")
    # What a published tower has and this kind of model does not use.
    width, embedded = config.encoder.width, config.encoder.clip["embed_dim"]
    unused = {"ln_post.weight": (width,), "ln_post.bias": (width,), "proj": (width, embedded)}
    clip = {f"visual.{name}": torch.ones(shape) for name, shape in unused.items()}
    save_file({**clip, **dict(_part(weights, "clip"))}, folder / "clip.safetensors")
    save_file(dict(_part(weights, "flamingo")), folder / "flamingo.safetensors")
    _write_shards(_part(weights, "llama"), llama)
    (folder / DONE).touch()


def _tokenizer(size: int) -> bytes:
    """A SentencePiece model of so many pieces, most of which no text has."""
    model: Any = proto.ModelProto()
    trained = train_bpe(CORPUS * 4, min(PIECES, size), hard_vocab_limit=False)
    model.ParseFromString(trained)
    for number in range(len(model.pieces), size):
        model.pieces.add(piece=chr(PRIVATE + number), score=-float(number))
    model.trainer_spec.vocab_size = size
    return bytes(model.SerializeToString())


def _part(weights: ModelWeights, wanted: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors of one file, under the names they have there."""
    for name in weights.base:
        if name.startswith("vision_encoder."):
            part, there = "clip", name.replace("vision_encoder.", "visual.", 1)
        elif name.startswith("perceiver.") or ".gated_cross_attn_layer." in name:
            part, there = "flamingo", name
        else:
            part, there = "llama", llama_name(name)
        if there == "model.embed_tokens.weight" and wanted != "clip":
            # OpenFlamingo's has rows for its tokens.
            rows = weights.config.llama.vocab_size
            whole = weights.base[name]
            yield (there, whole[:rows].contiguous()) if wanted == "llama" else (name, whole)
        elif part == wanted:
            yield there, weights.base[name]


def _write_shards(tensors: Iterator[tuple[str, Tensor]], folder: Path) -> None:
    """As transformers does: numbered files, and an index of what is where."""
    shard: dict[str, Tensor] = {}
    where: dict[str, str] = {}

    def flush() -> None:
        file = f"model-{len({*where.values()}) + 1:05}.safetensors"
        save_file(shard, folder / file, {"format": "pt"})
        where.update(dict.fromkeys(shard, file))
        shard.clear()

    for name, tensor in tensors:
        if sum(one.nbytes for one in shard.values()) + tensor.nbytes > SHARD:
            flush()
        shard[name] = tensor.to(torch.float16)
    flush()
    index = {"metadata": {}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _from_disk(checkpoints: Path, precision: str) -> dict[str, float]:
    parts = {
        "llama": checkpoints / "llama",
        "clip": checkpoints / "clip.json",
        "clip-weights": checkpoints / "clip.safetensors",
        "flamingo": checkpoints / "flamingo.safetensors",
        "precision": precision,
    }
    arguments = [f"--{name}={value}" for name, value in parts.items()]
    return _measured(lambda bundle: [FROM_DISK, *arguments, f"--output={bundle}"])


def _as_made(shape: str, precision: str) -> dict[str, float]:
    return _measured(lambda bundle: [AS_MADE, shape, precision, str(bundle)])


def _measured(program: Callable[[Path], list[str]]) -> dict[str, float]:
    """What one export took; the bundle, whose place `program` is told, is not kept."""
    kept = cache_dir("bench")
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept) as scratch:
        bundle = Path(scratch) / "bundle"
        start = time.perf_counter()
        line = [sys.executable, "-c", *program(bundle)]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise LiteError("The export failed; what it said is above.")
        return {
            "peak_rss_gb": round(int(done.stdout.split()[-1]) / 1e9, 2),
            "seconds": round(seconds, 1),
            "bundle_gb": round(_size(bundle) / 1e9, 2),
        }


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    run(command)
