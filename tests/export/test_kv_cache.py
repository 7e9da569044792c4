"""An int8 KV cache takes a quarter of the memory and moves the logits by little."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lite
from export.bundle import write_bundle
from export.kv_cache import KL_LIMIT, Bounds, _rotated_bound
from export.precision import precision
from export.proof import kl_divergence
from export.verify import prove
from lite.errors import LiteError
from qlora.families.flamingo import read_flamingo
from tests.conftest import CASES, CHECKPOINTS, VARIANTS
from tests.lite.conftest import CAT, DOG


@pytest.fixture(scope="module", params=["base", "preceding"])
def pair(request: pytest.FixtureRequest, bundles: Any, tmp_path_factory: Any) -> Any:
    """The same fp32 weights with a float and with an int8 cache."""
    weights = read_flamingo(**CHECKPOINTS, **VARIANTS[request.param])
    out = tmp_path_factory.mktemp("kv") / "int8"
    write_bundle(weights, out, precision("fp32", kv_bits=8), lambda bundle: [])
    return lite.load(bundles(request.param)), lite.load(out)


def test_a_quarter_of_the_memory(pair: Any) -> None:
    exact, coarse = pair
    assert coarse.decoder.cache_dtype == np.int8
    assert 4 * coarse.decoder.bytes_per_position == exact.decoder.bytes_per_position


def test_logits_stay_close_on_prompts_that_calibration_never_saw(pair: Any) -> None:
    divergences = []
    for case in CASES:
        ids = case["ids"].tolist()
        images = [str(path) for path in case.images]
        for end in range(max(1, len(ids) - 12), len(ids) + 1):
            if ids[:end].count(401) != len(images):
                continue
            seen = [m.encode_images(images) for m in pair]
            a, b = (m.decoder.logits(ids[:end], s) for m, s in zip(pair, seen, strict=True))
            divergences.append(kl_divergence(a, b))
    assert len(divergences) > 10
    assert 0 < np.mean(divergences) <= KL_LIMIT


def test_the_manifest_says_so_and_keeps_the_proof(pair: Any) -> None:
    manifest = pair[1].bundle.manifest
    assert manifest.precision["kv_cache"] == "int8"
    (proof,) = manifest.proofs
    assert proof["step"] == "int8 KV cache"
    assert proof["holds"]
    assert proof["value"] > 0
    assert pair[0].bundle.digest != pair[1].bundle.digest


def test_the_cache_is_used_again_and_rewound(pair: Any) -> None:
    model = pair[1]
    ids, images = [1, 401, *range(30, 50)], model.encode_images(DOG)
    model.decoder.logits(ids, images)
    first = model.decoder.logits([*ids, 60, 61], images)
    assert model.decoder.computed == 2
    model.decoder.logits([*ids, 70, 71, 72], images)
    again = model.decoder.logits([*ids, 60, 61], images)
    assert model.decoder.computed == 2
    np.testing.assert_allclose(again, first, atol=1e-5)


def test_a_session_keeps_the_int8_cache(pair: Any, tmp_path: Path) -> None:
    model = pair[1]
    chat = model.chat()
    for _ in chat.ask("What is this?", CAT, max_tokens=8):
        pass
    chat.save(tmp_path / "a.session", kv=True)
    opened = lite.load(model.bundle.folder).open(tmp_path / "a.session")
    asked = [[*c.ask("And now?", max_tokens=8)] for c in (chat, opened)]
    assert [p.token for p in asked[0]] == [p.token for p in asked[1]]
    # Only the question and the tokens after the last answer's end were read.
    assert asked[1][0].timings.prefill_tokens < asked[1][0].timings.prompt_tokens


def test_every_proof_holds_with_quantized_weights_too(tmp_path: Path) -> None:
    weights = read_flamingo(**CHECKPOINTS)
    for kind in ("fp32", "int8"):
        chosen = precision(kind, kv_bits=8)
        out = tmp_path / kind
        manifest = write_bundle(weights, out, chosen, lambda b, c=chosen: prove(b, weights, c))
        assert all(proof["holds"] for proof in manifest.proofs)
        assert manifest.proofs[0]["step"] == "int8 KV cache"
        lite.load(out)  # the record of the rewritten graph is right


def test_a_cache_that_loses_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.kv_cache.KL_LIMIT", 0.0)
    with pytest.raises(LiteError, match="refused: int8 KV cache against float KV cache"):
        write_bundle(
            read_flamingo(**CHECKPOINTS), tmp_path / "b", precision("fp32", kv_bits=8), lambda b: []
        )
    assert list(tmp_path.iterdir()) == []


def test_bounds_hold_at_every_position() -> None:
    random = np.random.default_rng(0)
    plain = random.normal(size=(2, 1, 16)).astype(np.float32)
    bound = _rotated_bound(plain)
    first, second = np.split(plain, 2, axis=-1)
    for angle in np.linspace(0, 6.3, 50):
        c, s = np.cos(angle), np.sin(angle)
        turned = np.concatenate((first * c - second * s, second * c + first * s), axis=-1)
        assert (np.abs(turned).max(axis=1).reshape(-1) <= bound * 1.0001).all()


def test_a_channel_without_values_has_a_scale_all_the_same() -> None:
    zeros = np.zeros(4, np.float32)
    for scale in Bounds(zeros, zeros).scales():
        assert (scale > 0).all()
        assert np.isfinite(1 / scale).all()
