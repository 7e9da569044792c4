"""The chain of proofs: a finished bundle compared, step by step, with the torch model.

Contract: torch computes in float32 from the same lazy weights, one layer in memory at a time, so a
model of any size can be proved on a machine that could not hold it. A step that does not hold stops
the export with one sentence.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sentencepiece import SentencePieceProcessor

from export.bundle import make_manifest, write_graphs
from export.precision import FP32, Precision
from export.probes import QUESTIONS, make_probes, odd_pictures, probe_pictures, stream
from export.processors import reference_of, tiles_of
from export.proof import Proof, kl_divergence
from lite.bundle.bundle import Bundle
from lite.bundle.manifest import TOKENIZER
from lite.chat.model import Model
from lite.errors import LiteError
from lite.image.preprocessing import load_image, to_pixels
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.model.weights import adapted_name

# Mean KL divergence from fp32, in nats, above which a bundle is refused. For orientation, llama.cpp
# publishes 0.0004 (8 bits) and 0.01 to 0.07 (4 bits) for LLaMA-7B and 8B.
KL_LIMITS = {"fp32": 0.005, "fp16": 0.005, "int8": 0.01, "int4": 0.2}
# Far above the rounding noise that `_second_turn` speaks of (at most 0.0003 over the sizes that the
# tests export), far below what a wrong cache would give.
SECOND_TURN_KL = 0.02
# A model whose float32 form is larger than this is compared with torch only: a second bundle in
# fp32 would cost more disk and memory than the machine it is made on may have.
FP32_BUNDLE_BYTES = 4 << 30


@dataclass(frozen=True)
class Case:
    """A probe: token ids and pictures, and torch's logits for them `[T, vocab]`."""

    ids: list[int]
    pictures: list[Image.Image]
    logits: np.ndarray


def prove(
    bundle: Bundle,
    weights: ModelWeights,
    precision: Precision,
    max_kl: float | None = None,
    merge: Sequence[Proof] | None = None,
) -> list[Proof]:
    """All steps for one bundle.

    Args:
        bundle: the finished graphs.
        weights: what they were made from.
        precision: of the bundle.
        max_kl: limit on the mean KL divergence instead of `KL_LIMITS`.
        merge: proofs of the merge (`export.drift`), where they were made on real activations.

    Raises:
        LiteError: a step does not hold.
    """
    model = Model(bundle)
    proofs = [_preprocessing(weights), *_token_ids(model, weights)]
    proofs += _merge(weights) if merge is None else merge
    cases = _torch_cases(model, weights)
    if precision.exact:
        proofs.append(_onnx_fp32(model, cases))
    elif 4 * weights.parameters <= FP32_BUNDLE_BYTES:
        with _fp32_model(bundle, weights) as fp32:
            proofs.append(_onnx_fp32(fp32, cases))
            exact = [fp32.score(case.ids, case.pictures) for case in cases]
        proofs += _quantized(model, cases, exact, "ONNX fp32", precision, max_kl)
    else:
        exact = [case.logits for case in cases]
        proofs += _quantized(model, cases, exact, "torch fp32", precision, max_kl)
    proofs.append(_second_turn(model, not precision.exact))
    for proof in proofs:
        if not proof.holds:
            raise LiteError(proof.refusal())
    return proofs


def _preprocessing(weights: ModelWeights) -> Proof:
    """On the probes, and on sizes whose middle is not a whole number of pixels."""
    p = weights.config.preprocessing
    name, reference = reference_of(weights.processor_folder, p)
    worst = 0.0
    for picture in (*probe_pictures(), *odd_pictures()):
        ours, right = tiles_of(to_pixels(load_image(picture), p), p), reference(picture)
        same = ours.shape == right.shape
        worst = max(worst, float(np.abs(ours - right).max()) if same else math.inf)
    return Proof("preprocessing", name, "max difference", worst, 1e-3)


def _token_ids(model: Model, weights: ModelWeights) -> list[Proof]:
    """Only where the folder has the SentencePiece model: nothing else tells what is right."""
    path = weights.llama_folder / "tokenizer.model"
    if not path.exists():
        return []
    reference = SentencePieceProcessor(model_file=str(path))
    texts = [model.chat().system, *(question for question, _ in QUESTIONS), "naïve 狗 🐕\n a  b"]
    different = sum(model.tokenizer.encode([text])[1:] != reference.encode(text) for text in texts)
    return [Proof("token ids", "SentencePiece", "texts that differ", different, 0)]


def _merge(weights: ModelWeights) -> list[Proof]:
    """Each merged matrix against base and adapter applied one after the other."""
    if weights.lora is None:
        return []
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for path, delta in weights.lora.deltas.items():
        name = adapted_name(path)
        x = torch.randn(4, weights.base.shape(name)[1], generator=generator)
        down, up = delta.a.float(), delta.b.float()
        base = weights.base[name].float()
        applied = x @ base.T + delta.scaling * (x @ down.T @ up.T)
        if delta.magnitude is not None:
            applied *= delta.magnitude.float() / _row_norms(base, delta.scaling * up, down)
        merged = x @ weights.tensors[name].float().T
        worst = max(worst, float((merged - applied).norm() / applied.norm()))
    return [Proof("adapter merged", "adapter applied", "relative error", worst, 1e-5)]


def _row_norms(base: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    """Norms of the rows of `base + up @ down` without that sum, by expanding the square."""
    inner = 2 * (base @ down.T) + up @ (down @ down.T)  # [out, r]
    return (base.square().sum(1) + (inner * up).sum(1)).sqrt()


def _torch_cases(model: Model, weights: ModelWeights) -> list[Case]:
    """The probes with torch's logits."""
    reference = VisionLanguageModel(weights.config, weights.special_ids["<image>"]).eval()
    stream(reference, weights.tensors)
    text = model.bundle.manifest.template
    cases = []
    for probe in make_probes(model.tokenizer, text, weights.config.preprocessing):
        with torch.no_grad():
            logits = reference(torch.tensor(probe.ids), probe.pixels)
        cases.append(Case(probe.ids, probe.pictures, logits.numpy()))
    return cases


@contextmanager
def _fp32_model(bundle: Bundle, weights: ModelWeights) -> Iterator[Model]:
    """The same model in fp32, in a temporary folder beside the bundle."""
    with tempfile.TemporaryDirectory(dir=bundle.folder.parent, prefix=".fp32.") as name:
        folder = Path(name)
        write_graphs(weights, folder, FP32)
        (folder / TOKENIZER).write_bytes(bundle.path(TOKENIZER).read_bytes())
        yield Model(Bundle(folder, make_manifest(weights, folder, FP32)))


def _onnx_fp32(model: Model, cases: list[Case]) -> Proof:
    worst = max(
        float(np.abs(model.score(case.ids, case.pictures) - case.logits).max()) for case in cases
    )
    return Proof("ONNX fp32", "torch fp32", "max difference", worst, 1e-3)


def _quantized(
    model: Model,
    cases: list[Case],
    exact: list[np.ndarray],
    against: str,
    precision: Precision,
    max_kl: float | None,
) -> list[Proof]:
    divergences, agreements = [], []
    for case, reference in zip(cases, exact, strict=True):
        logits = model.score(case.ids, case.pictures)
        divergences.append(kl_divergence(reference, logits))
        agreements.append(reference.argmax(-1) == logits.argmax(-1))
    step = f"ONNX {precision.name}"
    kl = float(np.concatenate(divergences).mean())
    top1 = float(np.concatenate(agreements).mean())
    limit = KL_LIMITS[precision.name] if max_kl is None else max_kl
    return [
        Proof(step, against, "mean KL divergence", kl, limit),
        Proof(step, against, "top-1 disagreement", 1.0 - top1, None),
    ]


def _second_turn(model: Model, quantized: bool) -> Proof:
    """A second turn on the cache against the same turn from scratch.

    A quantized bundle rounds activations to 8 bits, where a difference in the last float bit (one
    token at a time or many: another order of summation) can tip a value to the next code. Its
    logits are therefore compared as distributions.
    """
    chat = model.chat()
    picture = probe_pictures()[0]
    for question, image in ((QUESTIONS[0][0], picture), (QUESTIONS[2][0], None)):
        for _ in chat.ask(question, image, max_tokens=8):
            pass
    ids, images = chat.prompt()
    cached = model.decoder.logits(ids, images)
    scratch = model.decoder.score(ids, images)[-1]
    step, against = "second turn", "the same from scratch"
    if quantized:
        kl = float(kl_divergence(scratch, cached))
        return Proof(step, against, "KL divergence", kl, SECOND_TURN_KL)
    difference = float(np.abs(cached - scratch).max())
    return Proof(step, against, "max logit difference", difference, 1e-4)
