"""OpenFlamingo's checkpoint reads under either set of names, whole or not at all."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from lite.errors import BadInput
from qlora.checkpoints.sources import from_tensors
from qlora.families.flamingo import cross_attn_interval, gated_layers, open_flamingo
from tests.refusals import refused

CHECKPOINT = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny" / "openflamingo-checkpoint.pt"
ALIAS = "lang_encoder.gated_cross_attn_layers."
BLOCK = "lang_encoder.model.layers.{}.gated_cross_attn_layer."
EMBEDDING = "lang_encoder.model.embed_tokens.weight"

check_refused = partial(refused, open_flamingo)


def tensors() -> dict[str, Any]:
    return torch.load(CHECKPOINT, weights_only=True)


def without_aliases() -> dict[str, Any]:
    return {name: tensor for name, tensor in tensors().items() if not name.startswith(ALIAS)}


def only_aliases() -> dict[str, Any]:
    return {name: t for name, t in tensors().items() if "gated_cross_attn_layer." not in name}


def saved(path: Path, content: object) -> Path:
    torch.save(content, path / "checkpoint.pt")
    return path / "checkpoint.pt"


def test_the_fixture_reads() -> None:
    source = open_flamingo(CHECKPOINT)
    assert gated_layers(source) == [3, 7]
    assert cross_attn_interval(source) == 4
    assert source.shape(EMBEDDING) == (403, 64)
    assert source.where(EMBEDDING) == CHECKPOINT
    assert set(source) == set(without_aliases())


@pytest.mark.parametrize(
    "content",
    [
        without_aliases(),
        only_aliases(),
        {"model_state_dict": tensors(), "epoch": 1},
        {"model_state_dict": {f"module.{name}": t for name, t in tensors().items()}},
        {f"module.{name}": t for name, t in only_aliases().items()},
        # Copies on storages of their own, as a conversion would leave them.
        {name: t.clone() for name, t in tensors().items()},
    ],
)
def test_every_spelling_gives_the_same_tensors(tmp_path: Path, content: object) -> None:
    source = open_flamingo(saved(tmp_path, content))
    expected = without_aliases()
    assert set(source) == set(expected)
    assert all(torch.equal(source[name], expected[name]) for name in expected)


def test_safetensors_are_read_too(tmp_path: Path) -> None:
    save_file(without_aliases(), tmp_path / "checkpoint.safetensors")
    assert set(open_flamingo(tmp_path / "checkpoint.safetensors")) == set(without_aliases())


@pytest.mark.parametrize("change", [lambda t: t + 1, lambda t: t[:1], lambda t: t.half()])
def test_aliases_that_differ_are_refused(tmp_path: Path, change: Callable[[Any], Any]) -> None:
    content = tensors()
    name = ALIAS + "7.attn.to_q.weight"
    content[name] = change(content[name]).clone()
    check_refused(saved(tmp_path, content), name)


@pytest.mark.parametrize("name", sorted(without_aliases()))
def test_every_missing_tensor_is_named(tmp_path: Path, name: str) -> None:
    content = without_aliases()
    del content[name]
    check_refused(saved(tmp_path, content), name)


@pytest.mark.parametrize("name", sorted(set(without_aliases()) - {"perceiver.latents", EMBEDDING}))
def test_every_wrong_shape_is_found(tmp_path: Path, name: str) -> None:
    content = without_aliases()
    content[name] = content[name][:-1].clone() if len(content[name]) > 1 else torch.ones(2)
    check_refused(saved(tmp_path, content), "shape", "instead of")


@pytest.mark.parametrize("name", ["perceiver.latents", EMBEDDING, "perceiver.norm.weight"])
def test_tensors_with_other_axes_are_found(tmp_path: Path, name: str) -> None:
    content = without_aliases()
    content[name] = content[name].unsqueeze(0).clone()
    check_refused(saved(tmp_path, content), name, "shape")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("perceiver.frame_embs", "video"),
        ("perceiver.media_time_embs", "video"),
        ("vision_encoder.visual.conv1.weight", "whole model"),
        ("lang_encoder.old_decoder_blocks.0.mlp.up_proj.weight", "whole model"),
        ("lang_encoder.model.layers.0.decoder_layer.mlp.up_proj.weight", "whole model"),
        ("lang_encoder.lm_head.weight", "whole model"),
        ("lang_encoder.transformer.blocks.3.gated_cross_attn_layer.attn_gate", "another language"),
        ("lang_encoder.gpt_neox.layers.1.gated_cross_attn_layer.ff_gate", "another language"),
        (BLOCK.format(3) + "attn.to_q.lora_A.weight", "LoRA"),
        (BLOCK.format(3) + "attn.to_q.bias", "no place"),
        ("perceiver.layers.0.0.to_q.bias", "no place"),
        ("something", "no place"),
    ],
)
def test_what_does_not_belong_is_named(tmp_path: Path, name: str, said: str) -> None:
    content = without_aliases() | {name: torch.ones(1)}
    check_refused(saved(tmp_path, content), name, said)


def test_a_missing_resampler_layer_is_named(tmp_path: Path) -> None:
    content = {
        name: t
        for name, t in without_aliases().items()
        if not name.startswith("perceiver.layers.2.")
    }
    check_refused(saved(tmp_path, content), "perceiver.layers.2")


def test_a_file_without_blocks_is_refused(tmp_path: Path) -> None:
    content = {name: t for name, t in only_aliases().items() if not name.startswith(ALIAS)}
    with pytest.raises(BadInput, match="no gated cross-attention block"):
        open_flamingo(saved(tmp_path, content))


@pytest.mark.parametrize(
    ("layers", "interval"), [([3], 4), ([0, 1, 2], 1), ([1, 3, 5], 2), ([3, 7, 11, 15], 4)]
)
def test_the_interval_follows_from_the_layers(layers: list[int], interval: int) -> None:
    source = from_tensors({BLOCK.format(i) + "attn_gate": torch.ones(1) for i in layers}, Path("x"))
    assert cross_attn_interval(source) == interval


@pytest.mark.parametrize("layers", [[3, 11], [3, 6], [7, 11], [0, 2]])
def test_uneven_blocks_are_refused(layers: list[int]) -> None:
    names = [EMBEDDING, *(BLOCK.format(i) + "attn_gate" for i in layers)]
    source = from_tensors({name: torch.ones(1) for name in names}, Path("x"))
    with pytest.raises(BadInput, match="even spacing"):
        cross_attn_interval(source)
