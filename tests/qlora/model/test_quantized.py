"""The 4-bit base: bitsandbytes' bytes, read one tensor at a time, and never changed again."""

from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from qlora.checkpoints.pages import release
from qlora.checkpoints.sources import open_tensors
from qlora.families.flamingo import read_flamingo
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.model.adapters import add_adapters
from qlora.model.nf4 import Linear4bit, dequantize, nf4_linear, quantize
from qlora.model.quantized import dequantized, in_4_bits, load_quantized
from tests.conftest import CASES, CHECKPOINTS

CASE = CASES[0]
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3"]
AVX512_BF16 = bool(bitsandbytes.functional.has_avx512bf16())

LLAMA_LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GATED_LINEARS = ("attn.to_q", "attn.to_kv", "attn.to_out", "ff.1", "ff.3")


@pytest.fixture(scope="module")
def weights() -> ModelWeights:
    return read_flamingo(**CHECKPOINTS)


def load(
    weights: ModelWeights, compute: torch.dtype = torch.float32, **options: Any
) -> VisionLanguageModel:
    return load_quantized(weights, compute=compute, **options)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def check_unchanged(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (48, 192), (1100, 4096)])
def test_the_bytes_are_those_of_bitsandbytes(
    shape: tuple[int, int], dtype: torch.dtype, double: bool
) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    packed, state = quantize(weight, double)
    expected, constants = bitsandbytes.functional.quantize_4bit(
        weight, quant_type="nf4", compress_statistics=double
    )
    assert torch.equal(packed, expected)
    theirs, ours = constants.as_dict(packed=True), state.as_dict(packed=True)
    check_unchanged(theirs, ours)
    again = dequantize(packed, state)
    assert again.shape == weight.shape
    assert (again - weight.float()).norm() < 0.1 * weight.float().norm()


def test_rows_of_broken_blocks_stay_out() -> None:
    name = "lang_encoder.model.layers.0.decoder_layer.mlp.down_proj.weight"
    assert in_4_bits(name, (4096, 11008))
    assert not in_4_bits(name, (64, 160))
    assert not in_4_bits("lang_encoder.lm_head.weight", (32000, 4096))
    assert not in_4_bits("perceiver.layers.0.0.to_q.weight", (512, 1024))


def test_a_layer_multiplies_with_the_dequantized_matrix() -> None:
    weight, x = torch.randn(96, 64), torch.randn(3, 64, requires_grad=True)
    layer = nf4_linear(weight, torch.float32, "cpu")
    assert torch.allclose(layer(x), x @ dequantized(layer).T, atol=1e-5)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    assert torch.allclose(gradient, dequantized(layer).sum(0).expand(3, -1), atol=1e-5)


def test_the_matrices_of_the_layers_are_in_4_bits_and_nothing_else(
    weights: ModelWeights,
) -> None:
    model = load(weights, torch.bfloat16)
    small = {n for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    inside = {"lang_encoder.model.layers." + n for n in ("3.decoder_layer", "3.gated_cross_attn")}
    # The tiny model's down_proj has rows of 160 values, two and a half blocks.
    assert len(small) == 8 * (len(LLAMA_LINEARS) - 1) + 2 * len(GATED_LINEARS)
    assert all(any(n.startswith(i) for n in small) for i in inside)
    others = {n: p for n, p in model.named_parameters() if n.removesuffix(".weight") not in small}
    assert {p.dtype for p in others.values()} == {torch.bfloat16}
    assert not any(p.requires_grad or p.is_meta for p in model.parameters())
    assert model.lang_encoder.is_loaded_in_4bit
    assert not model.training


def test_4_bits_are_near_the_plain_model_and_none_is_the_plain_model(
    weights: ModelWeights,
) -> None:
    plain = VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS))
    ids, pixels = torch.from_numpy(CASE["ids"]), torch.from_numpy(CASE["pixels"])
    with torch.no_grad():
        expected = plain(ids, pixels)
        assert torch.equal(load(weights, base="none")(ids, pixels), expected)
        near = load(weights)(ids, pixels)
        again = VisionLanguageModel(weights.config, plain.image_id).eval()
        quantized = load(weights)
        for name, parameter in plain.named_parameters():
            parent, _, leaf = name.rpartition(".")
            module = quantized.get_submodule(parent)
            value = dequantized(module) if isinstance(module, Linear4bit) else parameter
            setattr(again.get_submodule(parent), leaf, nn.Parameter(value, requires_grad=False))
        assert torch.allclose(near, again(ids, pixels), atol=1e-4)
    assert 0.01 < (near - expected).norm() / expected.norm() < 0.5


def train_step(model: nn.Module, parameters: list[nn.Parameter], *inputs: torch.Tensor) -> bool:
    """Whether every parameter got a gradient that moves it."""
    model.train()
    optimizer = torch.optim.SGD(parameters, lr=1e-3)
    model(*inputs).square().mean().backward()
    reached = all(p.grad is not None and p.grad.abs().max() > 0 for p in parameters)
    optimizer.step()
    optimizer.zero_grad()
    return reached


class Below(nn.Module):
    """A trainable layer below a frozen 4-bit one: gradients must pass through the 4 bits."""

    def __init__(self, frozen: Linear4bit) -> None:
        super().__init__()
        self.trained, self.frozen = nn.Linear(64, 64, bias=False), frozen

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.frozen(self.trained(x))


def stock_layer(weight: torch.Tensor) -> Linear4bit:
    layer = Linear4bit(64, 96, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    layer.weight = bitsandbytes.nn.Params4bit(weight.clone(), quant_type="nf4", module=layer)
    return layer.to("cpu")


def trained_around_an_evaluation(layer: Linear4bit) -> tuple[bool, bool]:
    """Whether gradients still flow after an evaluation, and whether the 4 bits are as before."""
    model, x = Below(layer), torch.randn(5, 64)
    assert train_step(model, [model.trained.weight], x)
    before = layer.weight.detach().clone(), dequantized(layer)
    model.eval()
    with torch.no_grad():
        model(x)
    try:
        flows = train_step(model, [model.trained.weight], x)
    except RuntimeError:  # there was nothing to differentiate
        flows = False
    after = layer.weight.detach(), dequantized(layer)
    return flows, all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_between_training_steps_changes_nothing() -> None:
    weight = torch.randn(96, 64)
    assert trained_around_an_evaluation(nf4_linear(weight, torch.float32, "cpu")) == (True, True)


@pytest.mark.skipif(not AVX512_BF16, reason="bitsandbytes repacks only with AVX512-BF16")
@pytest.mark.filterwarnings("ignore")
def test_bitsandbytes_on_its_own_does_not_survive_an_evaluation() -> None:
    """Why `nf4_linear` forbids the repacking: without, gradients stop and the bytes change."""
    assert trained_around_an_evaluation(stock_layer(torch.randn(96, 64))) == (False, False)


@pytest.mark.parametrize("compute", [torch.float32, torch.bfloat16])
def test_training_leaves_the_base_bit_identical(
    weights: ModelWeights, compute: torch.dtype
) -> None:
    model = load(weights, compute)
    adapters = add_adapters(model, rank=4, alpha=4, targets=TARGETS, seed=1)
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    before = state_of(model)
    ids, pixels = torch.from_numpy(CASE["ids"]), torch.from_numpy(CASE["pixels"]).to(compute)
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1)
    for _ in range(2):
        adapters.train()
        model(ids, pixels).float().square().mean().backward()
        assert all(p.grad is not None for n, p in parameters.items() if "lora_B" in n)
        optimizer.step()
        optimizer.zero_grad()
        adapters.eval()
        with torch.no_grad():
            assert model(ids, pixels).isfinite().all()
    after = state_of(model)
    changed = {n for n in before if not torch.equal(before[n], after[n])}
    assert {n for n in parameters if "lora_B" in n} <= changed <= parameters.keys()
    assert {p.dtype for p in parameters.values()} == {torch.float32}


def resident_file_pages() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0])  # KiB


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux's page accounting")
@pytest.mark.parametrize("name", ["model.safetensors", "model.bin"])
def test_released_pages_leave_memory_and_can_be_read_again(tmp_path: Path, name: str) -> None:
    tensors = {"a": torch.arange(4_000_000.0), "b": torch.arange(4_000_000.0) + 1}
    if name.endswith("bin"):
        torch.save(tensors, tmp_path / name)
    else:
        save_file(tensors, tmp_path / name)
    source = open_tensors(tmp_path / name)
    read = source["a"]
    assert read.sum() > 0
    held = resident_file_pages()
    release(read)
    assert resident_file_pages() < held - 10_000
    assert torch.equal(read, tensors["a"])
    assert torch.equal(source["b"], tensors["b"])


def test_memory_that_is_no_file_is_not_released() -> None:
    tensor = torch.arange(4_000_000.0)
    release(tensor)
    assert torch.equal(tensor, torch.arange(4_000_000.0))
