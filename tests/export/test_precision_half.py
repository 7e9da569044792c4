"""Bundles with float16 activations, for GPUs, say the same as those with float32."""

from typing import Any

import numpy as np
import pytest

import lite
from export.precision import precision
from export.proof import kl_divergence
from export.verify import KL_LIMITS
from tests.conftest import CASES
from tests.lite.conftest import DOG


@pytest.mark.parametrize("kind", ["fp16", "int8", "int4"])
def test_logits_stay_close(halves: Any, bundles: Any, kind: str) -> None:
    half, full = lite.load(halves(kind)), lite.load(bundles())
    divergences = []
    for case in CASES:
        images = [str(path) for path in case.images]
        exact, rows = (model.score(case["ids"], images) for model in (full, half))
        divergences.append(kl_divergence(exact, rows))
    assert 0 < np.concatenate(divergences).mean() <= KL_LIMITS[kind]


def test_activations_and_cache_are_float16_and_the_rest_is_as_before(halves: Any) -> None:
    model = lite.load(halves("fp16"))
    assert model.bundle.manifest.activations == "fp16"
    assert model.decoder.cache_dtype == np.float16
    (memory,) = model.encode_images(DOG)
    assert memory.array.dtype == model.score([1, 30]).dtype == np.float32


def test_a_conversation_is_used_again_and_kept(halves: Any) -> None:
    first, second = (lite.load(halves("fp16")) for _ in range(2))
    ids, images = [1, 401, *range(30, 50)], first.encode_images(DOG)
    first.decoder.logits(ids, images)
    second.decoder.import_cache(first.decoder.export_cache(ids, images), ids, images)
    rows = [model.decoder.logits([*ids, 60], images) for model in (first, second)]
    assert first.decoder.computed == second.decoder.computed == 1
    np.testing.assert_array_equal(*rows)


def test_weights_take_half_the_room(halves: Any, bundles: Any) -> None:
    sizes = [
        sum(record.size for record in lite.load(folder).bundle.manifest.files.values())
        for folder in (halves("fp16"), bundles())
    ]
    assert sizes[0] < 0.6 * sizes[1]


def test_the_vision_graph_of_a_4_bit_model_computes_in_float16_too() -> None:
    chosen = precision("int4", activations=16).vision
    assert (chosen.bits, chosen.activations) == (8, 16)
