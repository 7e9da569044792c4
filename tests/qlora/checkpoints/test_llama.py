"""LLaMA folders of 2023 and of today read alike, and every mismatch is named."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from qlora.checkpoints.llama import read_llama
from tests.refusals import refused

LLAMA = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny" / "llama"

check_refused = partial(refused, read_llama)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LLAMA, tmp_path / "llama"))


def change_config(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    change(tensors)
    torch.save(tensors, folder / "pytorch_model.bin")


def test_the_fixture_of_2023_reads() -> None:
    llama = read_llama(LLAMA)
    assert llama.folder == LLAMA
    assert llama.config.num_hidden_layers == 8
    assert llama.config.rope_parameters["rope_theta"] == 10000.0
    assert llama.tensors.shape("model.layers.7.mlp.up_proj.weight") == (160, 64)
    assert not any("inv_freq" in name for name in llama.tensors)
    assert len(llama.tensors) == 8 * 9 + 3


def test_the_names_are_those_of_transformers() -> None:
    llama = read_llama(LLAMA)
    with torch.device("meta"):
        model = LlamaForCausalLM(llama.config)
    assert set(model.state_dict()) == set(llama.tensors)


def test_the_first_converted_folder_reads(folder: Path) -> None:
    # Its config.json had these ids and names; none of them may matter.
    change_config(
        folder,
        architectures=["LLaMAForCausalLM"],
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=-1,
        max_sequence_length=2048,
    )
    assert read_llama(folder).config.pad_token_id is None


@pytest.mark.parametrize("tied", [False, True])
def test_a_folder_of_today_reads(tmp_path: Path, tied: bool) -> None:
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": 5e5},
    )
    LlamaForCausalLM(config).half().save_pretrained(tmp_path, max_shard_size="20KB")
    llama = read_llama(tmp_path)
    assert llama.config.rope_parameters["rope_theta"] == 5e5
    assert llama.tensors.shape("model.layers.0.self_attn.q_proj.weight") == (64, 32)
    assert llama.tensors.shape("model.layers.0.self_attn.k_proj.weight") == (32, 32)
    assert llama.tensors["lm_head.weight"].dtype is torch.float16
    embedding = llama.tensors["model.embed_tokens.weight"]
    assert torch.equal(llama.tensors["lm_head.weight"], embedding) is tied
    assert (tmp_path / "model.safetensors.index.json").exists()


def test_a_tied_head_that_differs_is_refused(folder: Path) -> None:
    change_config(folder, tie_word_embeddings=True)
    check_refused(folder, "lm_head.weight", "tie_word_embeddings")


def test_a_missing_tensor_is_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop("model.layers.3.mlp.up_proj.weight"))
    check_refused(folder, "model.layers.3.mlp.up_proj.weight")


def test_a_missing_head_without_tying_is_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.pop("lm_head.weight"))
    check_refused(folder, "lm_head.weight")


@pytest.mark.parametrize("name", ["model.layers.8.mlp.up_proj.weight", "extra", "x.inv_freq"])
def test_an_unexpected_tensor_is_named(folder: Path, name: str) -> None:
    change_tensors(folder, lambda t: t.update({name: torch.ones(1)}))
    check_refused(folder, name)


def test_a_wrong_shape_is_named(folder: Path) -> None:
    change_tensors(folder, lambda t: t.update({"model.norm.weight": torch.ones(63)}))
    check_refused(folder, "model.norm.weight", "[63]", "[64]")


def test_quantized_values_are_refused(folder: Path) -> None:
    change_tensors(
        folder, lambda t: t.update({"model.norm.weight": torch.ones(64, dtype=torch.int8)})
    )
    check_refused(folder, "model.norm.weight", "int8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"attention_bias": True}, "attention biases"),
        ({"mlp_bias": True}, "MLP biases"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "'linear' RoPE"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 8.0}}, "'dynamic' RoPE"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "'yarn' RoPE"),
        ({"quantization_config": {"bits": 4}}, "quantized"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"model_type": "mistral"}, "mistral"),
        ({"model_type": None}, "None"),
        ({"hidden_size": "64"}, "hidden_size"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"num_attention_heads": 0}, "zero"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"rope_theta": "x"}, "rope_theta"),
        ({"rope_theta": 0}, "rope_theta"),
        ({"rope_scaling": "linear"}, "config.json"),
        ({"vocab_size": "400"}, "vocab_size"),
    ],
)
def test_configs_that_are_not_computed_are_refused(
    folder: Path, values: dict[str, object], said: str
) -> None:
    change_config(folder, **values)
    check_refused(folder, said)


@pytest.mark.parametrize("rope", [None, {"rope_type": "default"}])
def test_rope_scaling_that_says_nothing_is_fine(folder: Path, rope: object) -> None:
    change_config(folder, rope_scaling=rope)
    assert read_llama(folder).config.rope_parameters["rope_theta"] == 10000.0


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "nul"])
def test_a_missing_or_damaged_config_is_refused(folder: Path, text: str | None) -> None:
    (folder / "config.json").unlink()
    if text is not None:
        (folder / "config.json").write_text(text)
    check_refused(folder, "config.json")


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    (folder / "pytorch_model.bin").unlink()
    check_refused(folder, "model.safetensors")


def test_safetensors_of_the_same_weights_give_the_same_tensors(folder: Path) -> None:
    tensors = torch.load(folder / "pytorch_model.bin", weights_only=True)
    save_file(tensors, folder / "model.safetensors")
    (folder / "pytorch_model.bin").unlink()
    ours, theirs = read_llama(folder).tensors, read_llama(LLAMA).tensors
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
