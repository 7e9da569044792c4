"""A demo bundle back to the checkpoints of its training stages, to continue training from it.

Contract: `python -m bench.demo.checkpoints_of_bundle BUNDLE FOLDER` writes what the stages and the
instruction tuning write to FOLDER, as float32: `llama/`, `clip.json`,
`clip.safetensors`, `resampler.safetensors`, `flamingo.safetensors`. LoRA is merged into them,
int8 stays rounded, and what a bundle does not hold is missing: CLIP's text side and the teachers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import onnx_ir as ir
import torch
from safetensors.torch import save_file
from sentencepiece import sentencepiece_model_pb2 as proto
from torch import Tensor

from bench.demo.training.alignment import GATE
from bench.demo.training.language import llama_config
from bench.demo.training.resampler import PERCEIVER
from bench.demo.training.sizes import CLIP, VOCABULARY
from export.quantize import BlockQuantized
from lite.cli import entry_point
from lite.files import replacing
from qlora.model.weights import llama_name
from qlora.tiny.bpe import train_bpe

VISION = "vision_encoder."
# Texts that are enough for SentencePiece to make the settings of a tokenizer.
SOME_TEXT = ["the same settings, other pieces"] * 100


def read_back(bundle: Path) -> dict[str, Tensor]:
    """The tensors of both graphs under their torch names, in float32."""
    tensors: dict[str, Tensor] = {}
    for name in ("vision.onnx", "decoder.onnx"):
        graph = ir.load(bundle / name).graph
        # Gated blocks are in a branch: they are skipped where there is no image.
        for node in ir.traversal.RecursiveGraphIterator(graph):
            if node.op_type == "MatMulNBits":
                weight = node.inputs[1]
                assert weight is not None
                assert weight.name is not None
                matrix = BlockQuantized.of(node).dequantize()
                tensors[weight.name.removesuffix(".codes") + ".weight"] = torch.from_numpy(matrix)
        for label, value in graph.initializers.items():
            if label.endswith((".weight", ".bias", "embedding", ".latents")):
                assert value.const_value is not None
                tensors[label] = torch.from_numpy(value.const_value.numpy().copy()).float()
    return tensors


def clip_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tower, as open_clip names it."""
    found = {n.removeprefix(VISION): t for n, t in tensors.items() if n.startswith(VISION)}
    found["class_embedding"] = found["class_embedding"].flatten()
    renamed = {n.replace("in_proj.", "in_proj_"): t for n, t in found.items()}
    # What only the contrast with texts passes; open_clip's layout asks for it.
    width = len(found["class_embedding"])
    renamed |= {"ln_post.weight": torch.ones(width), "ln_post.bias": torch.zeros(width)}
    renamed["proj"] = torch.zeros(width, CLIP["embed_dim"])
    return {f"visual.{name}": tensor for name, tensor in renamed.items()}


def resampler_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {n: t for n, t in tensors.items() if n.startswith(PERCEIVER)}
    latents = f"{PERCEIVER}latents"
    return found | {latents: found[latents][0]}


def llama_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """LLaMA as transformers names it, without the embedding's added rows."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not name.startswith("lang_encoder.") or ".gated_cross_attn_layer." in name:
            continue
        inner = llama_name(name)
        if ".qkv_proj." in inner:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                found[inner.replace("qkv_proj", f"{part}_proj")] = rows.contiguous()
        else:
            found[inner] = tensor[:VOCABULARY].contiguous() if "embed" in inner else tensor
    return found


def gated_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gated blocks; each gate, which the export multiplied in, is where new ones start."""
    found = {n: t for n, t in tensors.items() if ".gated_cross_attn_layer." in n}
    for name in list(found):
        for last, gate in (("attn.to_out.weight", "attn_gate"), ("ff.3.weight", "ff_gate")):
            if name.endswith(last):
                found[name] = found[name] / math.tanh(GATE)
                found[name.removesuffix(last) + gate] = torch.tensor([GATE])
    return found


def tokenizer_model(bundle: Path) -> bytes:
    """The `tokenizer.model` that a bundle's `tokenizer.json` was made from."""
    read = json.loads((bundle / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = sorted(read["model"]["vocab"].items(), key=lambda item: item[1])[:VOCABULARY]
    model: Any = proto.ModelProto()
    model.ParseFromString(train_bpe(SOME_TEXT, 300))
    # Marks and bytes come first and are the same in all of them; a piece's score is its rank.
    fixed = [p for p in model.pieces if p.type != p.NORMAL]
    kept = [(p.piece, p.score, p.type) for p in fixed]
    assert [piece for piece, _, _ in kept] == [piece for piece, _ in pieces[: len(kept)]]
    rest = [(piece, float(-rank), 1) for rank, (piece, _) in enumerate(pieces[len(kept) :])]
    del model.pieces[:]
    for piece, score, kind in [*kept, *rest]:
        model.pieces.add(piece=piece, score=score, type=kind)
    model.trainer_spec.vocab_size = len(pieces)
    return bytes(model.SerializeToString())


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("bundle", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
def command(bundle: Path, folder: Path) -> None:
    """Read BUNDLE back into the files of the stages, in FOLDER."""
    tensors = read_back(bundle)
    resampler = resampler_tensors(tensors)
    embedding = "lang_encoder.model.embed_tokens.weight"
    llama_config().save_pretrained(folder / "llama")
    with replacing(folder / "llama" / "tokenizer.model") as path:
        path.write_bytes(tokenizer_model(bundle))
    with replacing(folder / "clip.json") as path:
        path.write_text(json.dumps(CLIP, indent=1))
    for name, found in {
        "llama/model": llama_tensors(tensors),
        "clip": clip_tensors(tensors),
        "resampler": resampler,
        "flamingo": {**resampler, **gated_tensors(tensors), embedding: tensors[embedding]},
    }.items():
        with replacing(folder / f"{name}.safetensors") as path:
            save_file({n: t.contiguous() for n, t in found.items()}, path)


main = entry_point(command)

if __name__ == "__main__":
    main()
