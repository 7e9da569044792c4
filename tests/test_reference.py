"""The chain of proofs against the public reference implementation, from pixels to tokens."""

from functools import cache

import numpy as np
import pytest
import torch

import lite
from export.verify import kl_divergence
from lite.image.preprocessing import load_image, to_pixels
from qlora.families.flamingo import read_flamingo
from qlora.model import VisionLanguageModel
from tests.conftest import CASES, CHECKPOINTS, VARIANTS, VOCAB, Case

WITH_IMAGES = [case for case in CASES if case.images]
GREEDY = [(v, n) for v in ("base", "lora") for n in (0, 2)]
NEW_TOKENS = 16


@cache
def torch_model(variant: str) -> VisionLanguageModel:
    return VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS, **VARIANTS[variant]))


def pixels(case: Case) -> torch.Tensor | None:
    return torch.from_numpy(case["pixels"]) if case.images else None


def prompt_of(case: Case) -> list[int]:
    """The reference continued its prompts from where the last response begins."""
    response = [395, 13]  # ":" and the newline that ends each heading
    ids = case["ids"].tolist()
    ends = [i + 2 for i in range(len(ids)) if ids[i : i + 2] == response]
    return ids[: ends[-1]]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"case{c.number}")
def test_token_ids_equal_the_reference(case, bundles):
    assert lite.load(bundles()).tokenize(case.text) == case["ids"].tolist()


@pytest.mark.parametrize("case", WITH_IMAGES, ids=lambda c: f"case{c.number}")
def test_pixels_equal_the_reference(case, bundles):
    preprocessing = lite.load(bundles()).bundle.manifest.preprocessing
    ours = np.stack([to_pixels(load_image(path), preprocessing) for path in case.images])
    assert np.abs(ours - case["pixels"]).max() <= 1e-3


@pytest.mark.parametrize("case", WITH_IMAGES, ids=lambda c: f"case{c.number}")
def test_clip_and_resampler_equal_the_reference(case):
    model = torch_model("base")
    with torch.no_grad():
        tokens, _ = model.config.encoder.encode(model.vision_encoder, pixels(case))
        resampled = model.perceiver(tokens)
    assert np.abs(tokens.numpy() - case["clip_tokens"]).max() <= 1e-5
    assert np.abs(resampled.numpy() - case["resampled"]).max() <= 1e-5


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"case{c.number}")
def test_torch_logits_equal_the_reference(case, variant):
    with torch.no_grad():
        logits = torch_model(variant)(torch.from_numpy(case["ids"]), pixels(case)).numpy()
    assert np.abs(logits - case[f"logits_{variant}"][:, :VOCAB]).max() <= 1e-4


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"case{c.number}")
def test_onnx_fp32_logits_equal_the_reference(case, variant, bundles):
    logits = lite.load(bundles(variant)).score(case["ids"], case.images)
    assert np.abs(logits - case[f"logits_{variant}"][:, :VOCAB]).max() <= 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_stays_close_to_fp32(variant, bundles):
    exact, int8 = lite.load(bundles(variant)), lite.load(bundles(variant, "int8"))
    divergences = [
        kl_divergence(exact.score(c["ids"], c.images), int8.score(c["ids"], c.images))
        for c in CASES
    ]
    assert np.concatenate(divergences).mean() <= 0.01


@pytest.mark.parametrize(("variant", "number"), GREEDY)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_torch_greedy_tokens_equal_the_reference(variant, number, use_cache):
    case = CASES[number]
    tokens = torch_model(variant).generate(
        prompt_of(case), pixels(case), max_new_tokens=NEW_TOKENS, use_cache=use_cache
    )
    assert tokens == case[f"greedy_{variant}"].tolist()


@pytest.mark.parametrize(("variant", "number"), GREEDY)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_onnx_greedy_tokens_equal_the_reference(variant, number, use_cache, bundles):
    case, model = CASES[number], lite.load(bundles(variant))
    images, ids = model.encode_images(case.images), prompt_of(case)
    start = len(ids)
    while len(ids) < start + NEW_TOKENS:
        last = model.decoder.logits(ids, images) if use_cache else model.decoder.score(ids, images)
        ids.append(int(last.reshape(-1, VOCAB)[-1].argmax()))
    assert ids[start:] == case[f"greedy_{variant}"].tolist()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("number", [0, 2, 3])
def test_greedy_tokens_do_not_depend_on_the_cache_or_the_runtime(variant, number, bundles):
    case, model, ids = CASES[number], torch_model(variant), prompt_of(CASES[number])
    cached = model.generate(ids, pixels(case), max_new_tokens=NEW_TOKENS)
    uncached = model.generate(ids, pixels(case), max_new_tokens=NEW_TOKENS, use_cache=False)
    onnx, sequence = lite.load(bundles(variant)), list(ids)
    images = onnx.encode_images(case.images)
    for _ in range(NEW_TOKENS):
        sequence.append(int(onnx.decoder.logits(sequence, images).argmax()))
    assert cached == uncached == sequence[len(ids) :]
