"""Adapters: the right number of them, PEFT's own arithmetic, and every way out of a run."""

import json
import socket
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from peft import PeftModel

from bench.shapes import config_of
from lite.errors import BadInput
from qlora.checkpoints.lora import read_lora
from qlora.checkpoints.sources import read_pickle
from qlora.families.flamingo import read_flamingo
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.model.adapters import (
    CONFIG,
    adapter_parameters,
    add_adapters,
    load_adapter,
    save_adapter,
    to_mmgpt,
)
from qlora.model.quantized import load_quantized
from qlora.model.weights import LoraMerged
from tests.conftest import CASES, CHECKPOINTS, LORA
from tests.refusals import check_one_sentence, refused

CASE = CASES[0]
MMGPT = ["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"]
ALL_LINEAR = [*MMGPT, "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def weights() -> ModelWeights:
    return read_flamingo(**CHECKPOINTS)


def adapted(
    weights: ModelWeights,
    compute: torch.dtype = torch.float32,
    base: Any = "none",
    **settings: Any,
) -> tuple[VisionLanguageModel, PeftModel]:
    model = load_quantized(weights, compute=compute, base=base)
    options = {"rank": 4, "alpha": 8, "targets": ALL_LINEAR, "seed": 3} | settings
    return model, add_adapters(model, **options).eval()


@torch.no_grad()
def trained(adapters: PeftModel) -> None:
    """As after a training: no matrix is zero, no magnitude is the base's."""
    random = torch.Generator().manual_seed(5)
    for name, parameter in adapter_parameters(adapters).items():
        noise = torch.randn(parameter.shape, generator=random)
        if "magnitude" in name:
            parameter.mul_(1 + 0.1 * noise)
        elif "lora_B" in name:
            parameter.add_(0.05 * noise)


@torch.no_grad()
def logits(model: VisionLanguageModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    ids, pixels = torch.from_numpy(CASE["ids"]), torch.from_numpy(CASE["pixels"])
    return model(ids, pixels.to(dtype)).float()


@pytest.mark.parametrize(("targets", "count"), [(MMGPT, 23_461_888), (ALL_LINEAR, 46_661_632)])
def test_the_parameters_at_the_published_size(targets: list[str], count: int) -> None:
    """The first number is in the log of the original training (Multimodal-GPT issue 26)."""
    model = VisionLanguageModel(config_of("9b"), image_id=32001)
    adapters = add_adapters(model, rank=16, alpha=16, targets=targets)
    found = [p for p in model.parameters() if p.requires_grad]
    assert sum(p.numel() for p in found) == count
    assert len(adapter_parameters(adapters)) == len(found) == (2 * 168 if count < 3e7 else 2 * 264)


@pytest.mark.parametrize("base", ["nf4", "none"])
def test_a_new_adapter_changes_nothing(weights: ModelWeights, base: Any) -> None:
    plain = logits(load_quantized(weights, compute=torch.float32, base=base))
    model, _ = adapted(weights, base=base)
    assert torch.equal(logits(model), plain)


def test_equal_seeds_give_equal_adapters_and_leave_the_random_state(
    weights: ModelWeights,
) -> None:
    state = torch.get_rng_state()
    one, same, other = (adapter_parameters(adapted(weights, seed=s)[1]) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("base", ["nf4", "none"])
@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
def test_adapters_are_float32_and_get_finite_gradients_whatever_the_base_is(
    weights: ModelWeights, compute: torch.dtype, base: Any, dora: bool, autocast: bool
) -> None:
    model, adapters = adapted(weights, compute, base, dora=dora, dropout=0.1, targets=MMGPT)
    trained(adapters)
    adapters.train()
    ids, pixels = torch.from_numpy(CASE["ids"]), torch.from_numpy(CASE["pixels"]).to(compute)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(ids, pixels).float().square().mean().backward()
    for parameter in adapter_parameters(adapters).values():
        assert parameter.dtype is torch.float32
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)


@pytest.mark.parametrize(
    "settings", [{}, {"rslora": True}, {"dora": True}, {"dora": True, "rslora": True}]
)
def test_the_merged_adapter_equals_the_adapter(
    weights: ModelWeights, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model, adapters = adapted(weights, **settings)
    trained(adapters)
    save_adapter(adapters, tmp_path)
    expected = logits(model)
    merged = logits(VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS, lora=tmp_path)))
    assert (merged - expected).norm() <= 1e-5 * expected.norm()
    base = logits(VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS)))
    assert (merged - base).norm() > 1e-2 * base.norm()


def test_each_merged_dora_matrix_has_its_magnitudes_as_row_norms(
    weights: ModelWeights, tmp_path: Path
) -> None:
    _, adapters = adapted(weights, dora=True)
    trained(adapters)
    save_adapter(adapters, tmp_path)
    deltas = read_lora(tmp_path).deltas
    merged = LoraMerged(weights.base, deltas)
    for path, delta in deltas.items():
        assert delta.magnitude is not None
        norms = merged[f"lang_encoder.{path}.weight"].norm(dim=1)
        assert torch.allclose(norms, delta.magnitude, rtol=1e-5)


@pytest.mark.parametrize("dora", [False, True])
def test_a_saved_adapter_comes_back_bit_for_bit(
    weights: ModelWeights, tmp_path: Path, dora: bool
) -> None:
    _, adapters = adapted(weights, base="nf4", dora=dora)
    trained(adapters)
    save_adapter(adapters, tmp_path / "one")
    model, fresh = adapted(weights, base="nf4", dora=dora, seed=9)
    load_adapter(fresh, tmp_path / "one")
    expected, found = adapter_parameters(adapters), adapter_parameters(fresh)
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert all(found[name] is p for name, p in adapter_parameters(fresh).items())
    save_adapter(fresh, tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()
    assert logits(model).isfinite().all()


def test_peft_loads_a_saved_adapter(weights: ModelWeights, tmp_path: Path) -> None:
    model, adapters = adapted(weights)
    trained(adapters)
    save_adapter(adapters, tmp_path)
    again = load_quantized(weights, compute=torch.float32, base="none")
    loaded = peft.PeftModel.from_pretrained(again.lang_encoder, str(tmp_path))
    assert loaded.peft_config["default"].r == 4
    assert torch.equal(logits(again), logits(model))


def test_nothing_asks_the_network(
    weights: ModelWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: object) -> None:
        raise AssertionError(f"asked the network: {args}")

    monkeypatch.setattr(socket.socket, "connect", never)
    monkeypatch.setattr(socket, "getaddrinfo", never)
    model, adapters = adapted(weights, base="nf4")
    model.lang_encoder.name_or_path = "some/model"
    adapters.peft_config["default"].base_model_name_or_path = "some/model"
    save_adapter(adapters, tmp_path)
    load_adapter(adapters, tmp_path)


@pytest.mark.parametrize("targets", [MMGPT, r"model\.layers\.[37]\..*(q_proj|to_out|ff\.1)"])
def test_targets_are_endings_or_a_pattern(weights: ModelWeights, targets: Any) -> None:
    _, adapters = adapted(weights, targets=targets)
    adapted_paths = {n.split(".lora_")[0] for n in adapter_parameters(adapters)}
    assert len(adapted_paths) == (8 * 4 + 2 * 5 if targets is MMGPT else 2 * 3)


@pytest.mark.parametrize(
    ("targets", "named"),
    [
        (["q_proj", "v_porj"], ["'v_porj'", "v_proj"]),
        (["qproj"], ["q_proj"]),
        (["to_k"], ["to_kv"]),
        (["zzzzzzzz"], ["there are", "gate_proj", "ff.1"]),
        (["attn"], ["gated_cross_attn_layer.attn", "no linear layer"]),
        (["lm_head"], ["lm_head", "no linear layer"]),
        (["embed_tokens"], ["embed_tokens"]),
        (".*norm", ["no linear layer"]),
        (".*q_prj", ["q_proj"]),
        ("(", ["no regular expression"]),
    ],
)
def test_wrong_targets_are_named_with_the_nearest(
    weights: ModelWeights, targets: Any, named: list[str]
) -> None:
    with pytest.raises(BadInput) as error:
        adapted(weights, targets=targets)
    check_one_sentence(error, *named)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"rank": 8}, ["rank 4", "8"]),
        ({"alpha": 16}, ["alpha 8", "16"]),
        ({"rslora": True}, ["rslora False"]),
        ({"dora": True}, ["dora False"]),
        ({"targets": MMGPT}, ["gate_proj"]),
    ],
)
def test_an_adapter_of_other_settings_is_not_loaded(
    weights: ModelWeights, tmp_path: Path, settings: dict[str, Any], named: list[str]
) -> None:
    save_adapter(adapted(weights)[1], tmp_path)
    other = adapted(weights, **settings)[1]
    refused(partial(load_adapter, other), tmp_path, *named)


@pytest.mark.parametrize("settings", [{}, {"rslora": True}, {"rank": 16, "alpha": 16}])
def test_the_original_layout_holds_the_same_updates(
    weights: ModelWeights, tmp_path: Path, settings: dict[str, Any]
) -> None:
    _, adapters = adapted(weights, targets=MMGPT, **settings)
    trained(adapters)
    save_adapter(adapters, tmp_path / "peft")
    to_mmgpt(tmp_path / "peft", tmp_path / "mmgpt.pt")
    expected, found = read_lora(tmp_path / "peft").deltas, read_lora(tmp_path / "mmgpt.pt").deltas
    assert expected.keys() == found.keys()
    for path, delta in expected.items():
        assert torch.equal(found[path].delta(), delta.delta())


def test_the_original_layout_has_the_original_keys(weights: ModelWeights, tmp_path: Path) -> None:
    save_adapter(adapted(weights, targets=MMGPT, rank=16, alpha=16)[1], tmp_path / "peft")
    to_mmgpt(tmp_path / "peft", tmp_path / "mmgpt.pt")
    ours, original = read_pickle(tmp_path / "mmgpt.pt"), read_pickle(LORA)
    assert isinstance(ours, dict)
    assert isinstance(original, dict)
    published = original["model_state_dict"]
    shapes = {n: t.shape for n, t in published.items() if "gated_cross_attn_layers." not in n}
    assert {n: t.shape for n, t in ours["model_state_dict"].items()} == shapes
    assert ours["tuning_config"]["lora_r"] == ours["tuning_config"]["lora_alpha"] == 16
    assert ours["tuning_config"]["lora_target_modules"] == sorted(MMGPT)


def test_what_the_original_layout_cannot_hold_is_refused(
    weights: ModelWeights, tmp_path: Path
) -> None:
    convert = partial(to_mmgpt, file=tmp_path / "mmgpt.pt")
    save_adapter(adapted(weights, dora=True)[1], tmp_path / "dora")
    refused(convert, tmp_path / "dora", "DoRA", "PEFT folder")
    save_adapter(adapted(weights, rslora=True)[1], tmp_path / "mixed")
    config = json.loads((tmp_path / "mixed" / CONFIG).read_text())
    config["alpha_pattern"] = {"layers.3.*": 2}
    (tmp_path / "mixed" / CONFIG).write_text(json.dumps(config))
    refused(convert, tmp_path / "mixed", "different rank or scaling")
    assert not (tmp_path / "mmgpt.pt").exists()
