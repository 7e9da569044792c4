"""Adapters of Multimodal-GPT give the same updates in every spelling, or one sentence."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from qlora.checkpoints.lora import LoraDelta, read_lora
from qlora.checkpoints.sources import read_pickle
from tests.refusals import refused

LORA = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny" / "mmgpt-lora.pt"
PREFIX = "module.lang_encoder.base_model.model."
Q_PROJ = "model.layers.3.decoder_layer.self_attn.q_proj"

check_refused = partial(refused, read_lora)


def fixture() -> dict[str, Any]:
    loaded = read_pickle(LORA)
    assert isinstance(loaded, dict)
    return loaded


def saved(folder: Path, content: object) -> Path:
    torch.save(content, folder / "lora.pt")
    return folder / "lora.pt"


def check_same(found: Path, scaling: float = 1.0) -> None:
    ours, expected = read_lora(found).deltas, read_lora(LORA).deltas
    assert set(ours) == set(expected)
    for module, delta in expected.items():
        assert torch.equal(ours[module].a, delta.a)
        assert torch.equal(ours[module].b, delta.b)
        assert ours[module].scaling == scaling


def test_the_fixture_reads() -> None:
    lora = read_lora(LORA)
    assert lora.path == LORA
    # 8 layers with 4 attention matrices, 2 gated blocks with 3 + 2.
    assert len(lora.deltas) == 8 * 4 + 2 * 5
    assert {delta.scaling for delta in lora.deltas.values()} == {1.0}
    assert lora.deltas["model.layers.3.gated_cross_attn_layer.ff.1"].delta().shape == (256, 64)
    assert Q_PROJ in lora.deltas


def test_delta_is_scaled_and_in_float32() -> None:
    a, b = torch.randn(2, 5).half(), torch.randn(3, 2).half()
    delta = LoraDelta(a, b, 0.5).delta()
    assert delta.dtype is torch.float32
    assert torch.allclose(delta, 0.5 * b.float() @ a.float())


def spelled(change: Callable[[str], str]) -> dict[str, Any]:
    state = fixture()["model_state_dict"]
    return {change(name): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name,
        lambda name: name.removeprefix("module."),
        lambda name: name.replace(".default", ""),
        lambda name: name.removeprefix("module.").replace(".default", ""),
    ],
)
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("aliases", [True, False])
def test_every_spelling_gives_the_same_updates(
    tmp_path: Path, change: Callable[[str], str], wrapped: bool, aliases: bool
) -> None:
    state = spelled(change)
    if not aliases:
        state = {n: t for n, t in state.items() if "layers.3.gated_cross_attn_layer." not in n}
    content = {"model_state_dict": state} if wrapped else state
    check_same(saved(tmp_path, content | {"tuning_config": fixture()["tuning_config"]}))


def test_a_training_checkpoint_reads(tmp_path: Path) -> None:
    trainer = {"epoch": 0, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "lr_scheduler": {}}
    check_same(saved(tmp_path, fixture() | trainer))


def test_alpha_is_the_rank_where_no_config_says_otherwise(tmp_path: Path) -> None:
    check_same(saved(tmp_path, {"model_state_dict": fixture()["model_state_dict"]}))


@pytest.mark.parametrize("nested", [True, False])
def test_alpha_comes_from_the_config(tmp_path: Path, nested: bool) -> None:
    content = fixture()
    tuning = content["tuning_config"] | {"lora_alpha": 8}
    content["tuning_config"] = {"tuning_config": tuning} if nested else tuning
    check_same(saved(tmp_path, content), scaling=0.5)


@pytest.mark.parametrize(
    "tuning", [{"lora_r": 8, "lora_alpha": 16}, {"lora_r": 32, "lora_alpha": 8}]
)
def test_a_config_of_another_rank_is_refused(tmp_path: Path, tuning: dict[str, int]) -> None:
    check_refused(saved(tmp_path, fixture() | {"tuning_config": tuning}), "rank 16", "lora_r")


@pytest.mark.parametrize(
    "tuning", [{}, 3, {"lora_r": 16}, {"lora_r": "16", "lora_alpha": 16}, {"lora_alpha": math.nan}]
)
def test_an_unusable_config_is_refused(tmp_path: Path, tuning: object) -> None:
    check_refused(saved(tmp_path, fixture() | {"tuning_config": tuning}), "tuning_config")


def change_state(folder: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = fixture()
    change(content["model_state_dict"])
    return saved(folder, content)


@pytest.mark.parametrize("side", ["A", "B"])
def test_half_a_pair_is_named(tmp_path: Path, side: str) -> None:
    name = f"{PREFIX}{Q_PROJ}.lora_{side}.default.weight"
    check_refused(change_state(tmp_path, lambda s: s.pop(name)), f"lora_{side}", Q_PROJ)


@pytest.mark.parametrize("value", [torch.ones(64, 8), torch.ones(64), torch.ones(64, 16).int()])
def test_matrices_that_do_not_fit_are_named(tmp_path: Path, value: torch.Tensor) -> None:
    name = f"{PREFIX}{Q_PROJ}.lora_B.default.weight"
    check_refused(change_state(tmp_path, lambda s: s.update({name: value})), Q_PROJ)


@pytest.mark.parametrize(
    "name",
    [
        "module.perceiver.latents",
        f"{PREFIX}{Q_PROJ}.weight",
        f"{PREFIX}{Q_PROJ}.lora_A.other.weight",
        f"{PREFIX}model.embed_tokens.lora_embedding_A.default",
    ],
)
def test_what_is_no_lora_matrix_is_named(tmp_path: Path, name: str) -> None:
    path = change_state(tmp_path, lambda s: s.update({name: torch.ones(2, 2)}))
    check_refused(path, name.removeprefix("module."))


def test_aliases_that_differ_are_refused(tmp_path: Path) -> None:
    name = f"{PREFIX}gated_cross_attn_layers.3.ff.1.lora_A.default.weight"
    path = change_state(tmp_path, lambda s: s.update({name: s[name] + 1}))
    check_refused(path, "model.layers.3.gated_cross_attn_layer.ff.1")


def test_two_spellings_of_one_matrix_are_refused(tmp_path: Path) -> None:
    name = f"{PREFIX}{Q_PROJ}.lora_A.default.weight"
    for other in (name.replace(".default", ""), name.removeprefix("module.")):
        check_refused(change_state(tmp_path, lambda s, o=other: s.update({o: s[name]})))


@pytest.mark.parametrize("content", [{}, {"model_state_dict": {}}, [], {"tuning_config": None}])
def test_a_file_without_matrices_is_refused(tmp_path: Path, content: object) -> None:
    check_refused(saved(tmp_path, content))


@pytest.mark.parametrize("side", ["A", "B"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_matrices_that_are_not_finite_are_named(tmp_path: Path, side: str, value: float) -> None:
    content = fixture()
    name = f"{PREFIX}{Q_PROJ}.lora_{side}.default.weight"
    content["model_state_dict"][name][0, 0] = value
    check_refused(saved(tmp_path, content), f"lora_{side}", Q_PROJ, "not finite")
