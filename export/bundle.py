"""Writes a bundle: both graphs, the tokenizer and the manifest, or nothing.

Contract: everything is written into a hidden folder beside the target, which gets its name, by one
rename, only when complete and proved; whatever interrupts an export, no half bundle remains that
could be opened. The hidden folder has no manifest until then, and the next export to the same
place clears it away and starts clean. Memory stays at about one tensor, checkpoint pages included;
only the proofs (and the calibration of an int8 KV cache) run the bundle and need memory for it.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

from export.decoder_graph import DecoderGraph
from export.graph import Graph
from export.heads import padded_head_dim
from export.kv_cache import to_int8_cache
from export.precision import Precision
from export.probes import make_probes
from export.proof import Proof
from export.vision_graph import VisionGraph
from lite.bundle.bundle import Bundle, file_record
from lite.bundle.manifest import DECODER, MANIFEST, TOKENIZER, VISION, Manifest, Sizes
from lite.errors import BadInput, LiteError
from lite.files import replacing_folder, restore_replaced
from lite.text.template import template
from qlora.checkpoints.pages import Walk
from qlora.model import ModelWeights
from qlora.model.config import ModelConfig


def write_bundle(
    weights: ModelWeights,
    out: Path,
    precision: Precision,
    prove: Callable[[Bundle], list[Proof]],
    *,
    force: bool = False,
    wrote: Callable[[int], None] = lambda parameters: None,
) -> Manifest:
    """Export a model.

    Args:
        weights: what to export; a LoRA is merged already.
        out: folder to make.
        precision: of the decoder's linear layers, and of the vision graph's.
        prove: compares the finished graphs with torch; what it raises stops the export.
        force: replace what is at `out`.
        wrote: called with the number of values after each weight, for progress.

    Raises:
        BadInput: `out` exists and `force` is not set, or the disk has too little room.
    """
    restore_replaced(out)
    if out.exists() and not force:
        raise BadInput(f"{out} exists already; choose another name or replace it with --force.")
    if force and out.exists() and not (out / MANIFEST).is_file():
        raise BadInput(f"{out} exists and is not a bundle, so it is not replaced; move it away.")
    _check_room(out.parent, weights, precision)
    # On the disk before it has its name: a manifest never describes what is not there.
    with replacing_folder(out, durable=True) as partial:
        write_graphs(weights, partial, precision, wrote)
        weights.tokenizer.tokenizer.save(str(partial / TOKENIZER))
        manifest = make_manifest(weights, partial, precision)
        proofs = _quantize_cache(partial, manifest, weights) if precision.kv_bits == 8 else []
        proofs += prove(Bundle(partial, manifest))
        manifest.proofs.extend(proof.to_json() for proof in proofs)
        text = json.dumps(manifest.to_json(), indent=1)
        (partial / MANIFEST).write_text(text, encoding="utf-8")
    return manifest


def write_graphs(
    weights: ModelWeights,
    folder: Path,
    precision: Precision,
    wrote: Callable[[int], None] = lambda parameters: None,
) -> None:
    """Write both graphs with their weights into `folder`."""
    tensors = Walk(weights.tensors)
    with Graph(folder, VISION, precision.vision, wrote) as graph:
        VisionGraph(graph, weights.config, tensors).build()
    with Graph(folder, DECODER, precision, wrote) as graph:
        DecoderGraph(graph, weights.config, tensors).build()


def make_manifest(weights: ModelWeights, folder: Path, precision: Precision) -> Manifest:
    """The manifest of the files in `folder`, without proofs."""
    tokenizer = weights.tokenizer
    return Manifest(
        sizes=sizes(weights.config, weights.parameters),
        attend=weights.config.attend,
        template=template(weights.config.template),
        special_ids={"<s>": tokenizer.bos, "</s>": tokenizer.eos, **weights.special_ids},
        preprocessing=weights.config.preprocessing,
        precision={
            "vision": precision.vision.name,
            "decoder": precision.name,
            "activations": f"fp{precision.activations}",
        },
        files={p.name: file_record(p) for p in sorted(folder.iterdir()) if p.name != MANIFEST},
        family=weights.config.family,
        encoder=weights.config.encoder.name,
        connector=weights.config.connector.name,
        injection=weights.config.injection.name,
    )


def _quantize_cache(folder: Path, manifest: Manifest, weights: ModelWeights) -> list[Proof]:
    """An int8 KV cache for the finished graph in `folder`; the manifest learns of it."""
    text, pictures = manifest.template, weights.config.preprocessing
    probes = make_probes(weights.chat_tokenizer(), text, pictures)
    proof = to_int8_cache(Bundle(folder, manifest), probes)
    manifest.files[DECODER] = file_record(folder / DECODER)
    manifest.precision["kv_cache"] = "int8"
    if not proof.holds:
        raise LiteError(proof.refusal())
    return [proof]


def sizes(config: ModelConfig, parameters: int) -> Sizes:
    """What the runtime must know of a model."""
    llama = config.llama
    return Sizes(
        layers=llama.num_hidden_layers,
        kv_heads=llama.num_key_value_heads,
        head_dim=padded_head_dim(llama.head_dim),
        context=llama.max_position_embeddings,
        vocab=llama.vocab_size,
        blocks=len(config.injection.layers),
        visual_heads=config.injection.kv_heads,
        latents=config.latents,
        visual_head_dim=config.injection.dim_head or config.dim_visual,
        parameters=parameters,
    )


def _check_room(folder: Path, weights: ModelWeights, precision: Precision) -> None:
    """Refuse early what would fill the disk."""
    folder.mkdir(parents=True, exist_ok=True)
    needed = needed_bytes(weights, precision)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"The bundle needs about {needed / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB "
            f"free; free some space or export to another disk."
        )


def needed_bytes(weights: ModelWeights, precision: Precision) -> int:
    """Room that a bundle takes on disk: values and scales, a tenth to spare."""
    tensors = weights.tensors
    bits = sum(_bits(n, precision) * math.prod(tensors.shape(n)) for n in tensors)
    return int(bits / 8 * 1.1)


def _bits(name: str, precision: Precision) -> float:
    """Bits that each value of a tensor takes with its share of the scales."""
    if precision.bits >= 16:
        return precision.bits
    if "embed_tokens" in name:
        return 16
    kept = {"vision_encoder.", "perceiver.", *(precision.sensitive & {"lm_head", "down_proj"})}
    if "cross_attention" in precision.sensitive:
        kept.add("gated_cross_attn_layer.attn")
    bits = max(precision.bits, 8) if any(part in name for part in kept) else precision.bits
    return bits + 32 / min(precision.block, 32)
