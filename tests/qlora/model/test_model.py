"""The torch model beyond the reference's own cases."""

import copy
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from transformers import LlamaForCausalLM

from lite.errors import BadInput
from qlora.checkpoints.llama import read_llama
from qlora.checkpoints.lora import read_lora
from qlora.families.flamingo import read_flamingo
from qlora.model import VisionLanguageModel
from qlora.tiny.model import TinySizes, write_checkpoints
from tests.conftest import CASES, CHECKPOINTS, FIXTURE, LORA

IMAGE_CASE, TEXT_CASE, TWO_IMAGES = CASES[0], CASES[2], CASES[3]


@pytest.fixture(scope="module")
def model():
    return VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS))


@torch.no_grad()
def logits(model, case, with_pixels=True):
    pixels = torch.from_numpy(case["pixels"]) if case.images and with_pixels else None
    return model(torch.from_numpy(case["ids"]), pixels)


@pytest.fixture(scope="module")
def llama(model):
    """transformers' own LLaMA on the same weights, with OpenFlamingo's embedding."""
    plain = read_llama(FIXTURE / "llama")
    config = copy.deepcopy(plain.config)
    config.vocab_size = 403
    built = LlamaForCausalLM(config).eval()
    tensors = {name: plain.tensors[name].float() for name in plain.tensors}
    tensors["model.embed_tokens.weight"] = model.lang_encoder.model.embed_tokens.weight
    tensors["lm_head.weight"] = torch.cat((tensors["lm_head.weight"], torch.zeros(3, 64)))
    built.load_state_dict(tensors)
    return built


@torch.no_grad()
def test_without_images_it_is_exactly_the_plain_llama(model, llama):
    ids = torch.from_numpy(TEXT_CASE["ids"])
    assert torch.equal(model(ids), llama(ids[None]).logits[0, :, :400])


@torch.no_grad()
def test_closed_gates_let_nothing_through(model, llama):
    closed = copy.deepcopy(model)
    for name, parameter in closed.named_parameters():
        if name.endswith("_gate"):
            parameter.zero_()
    ids = torch.from_numpy(IMAGE_CASE["ids"])
    expected = llama(ids[None]).logits[0, :, :400]
    assert torch.equal(logits(closed, IMAGE_CASE), expected)


def test_a_batch_equals_its_rows(model):
    ids = torch.from_numpy(IMAGE_CASE["ids"])[None].repeat(2, 1)
    pixels = torch.from_numpy(np.stack([IMAGE_CASE["pixels"], IMAGE_CASE["pixels"][:, :, ::-1]]))
    with torch.no_grad():
        both = model(ids, pixels)
        rows = [model(ids[i], pixels[i]) for i in range(2)]
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)
    assert torch.allclose(both, torch.stack(rows), atol=1e-5)


def test_the_number_of_images_must_be_that_of_image_tokens(model):
    ids = torch.from_numpy(TWO_IMAGES["ids"])
    with pytest.raises(BadInput, match="2 <image> tokens but 1 images"):
        model(ids, torch.from_numpy(TWO_IMAGES["pixels"][:1]))
    with pytest.raises(BadInput, match="1 <image> tokens but 0 images"):
        logits(model, IMAGE_CASE, with_pixels=False)


@pytest.mark.parametrize("attend", ["following", "preceding"])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"case{c.number}")
def test_cached_generation_equals_uncached(attend, case):
    model = VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS, attend=attend))
    pixels = torch.from_numpy(case["pixels"]) if case.images else None
    runs = [model.generate(case["ids"], pixels, max_new_tokens=12, use_cache=use) for use in (1, 0)]
    assert runs[0] == runs[1]


def test_generation_stops_at_the_end_token(model):
    case = CASES[0]
    pixels = torch.from_numpy(case["pixels"])
    free = model.generate(case["ids"], pixels, max_new_tokens=8)
    stopped = model.generate(case["ids"], pixels, max_new_tokens=8, eos=free[3])
    assert stopped == free[: free.index(free[3])]


def test_the_merged_lora_equals_peft(model):
    """peft's own forward, base and adapter applied one after the other."""
    deltas = read_lora(LORA).deltas
    config = peft.LoraConfig(r=16, lora_alpha=16, target_modules=[*deltas])
    adapted = copy.deepcopy(model)
    adapted.lang_encoder = peft.get_peft_model(adapted.lang_encoder, config)
    with torch.no_grad():
        for path, delta in deltas.items():
            layer = adapted.lang_encoder.base_model.model.get_submodule(path)
            layer.lora_A["default"].weight.copy_(delta.a)
            layer.lora_B["default"].weight.copy_(delta.b)
    merged = VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS, lora=LORA))
    for case in CASES:
        difference = logits(merged, case) - logits(adapted, case)
        assert difference.norm() <= 1e-5 * logits(adapted, case).norm()
        assert not torch.allclose(logits(merged, case), logits(model, case), atol=1e-2)


def other(tmp_path, **sizes):
    return write_checkpoints(tmp_path, TinySizes(**sizes))


def test_parts_of_different_models_are_refused_by_name(tmp_path):
    narrow = other(tmp_path / "narrow", hidden=32)
    other(tmp_path / "shallow", layers=4)
    blind = other(tmp_path / "blind", vision_width=48)
    with pytest.raises(BadInput, match=r"embeddings in .* have width 64 but the LLaMA .* 32"):
        read_flamingo(**{**CHECKPOINTS, "llama": tmp_path / "narrow" / "llama"})
    with pytest.raises(BadInput, match=r"gated blocks before layers 3, 7, .* does not fit"):
        read_flamingo(**{**CHECKPOINTS, "llama": tmp_path / "shallow" / "llama"})
    with pytest.raises(BadInput, match="patch tokens of width 64 but the CLIP model gives 48"):
        read_flamingo(**{**CHECKPOINTS, "clip_config": blind.clip, "clip": blind.clip_weights})
    words = other(tmp_path / "words", vocabulary=300)
    with pytest.raises(BadInput, match=r"embeddings in .* have 403 rows and the tokenizer has 300"):
        read_flamingo(**{**CHECKPOINTS, "llama": Path(words.llama)})
    with pytest.raises(BadInput, match=r"LoRA for .*q_proj.* has shape \[32, 32\]"):
        read_flamingo(**CHECKPOINTS, lora=Path(narrow.lora))
    deep = other(tmp_path / "deep", layers=12)
    with pytest.raises(BadInput, match="which this model does not have"):
        read_flamingo(**CHECKPOINTS, lora=Path(deep.lora))


@torch.no_grad()
def test_the_head_on_the_hidden_states_gives_the_logits(model):
    for case in CASES:
        ids = torch.from_numpy(case["ids"])
        visual = model.encode(torch.from_numpy(case["pixels"]))[None] if case.images else None
        hidden = model.hidden(ids[None], visual=visual)
        assert hidden.shape == (1, len(ids), 64)
        assert torch.equal(model.lang_encoder.lm_head(hidden)[0], logits(model, case))


@torch.no_grad()
@pytest.mark.parametrize("attend", ["following", "preceding"])
def test_samples_packed_into_one_row_do_not_see_each_other(attend):
    model = VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS, attend=attend))
    cases = [case for case in CASES if case.images]
    assert len(cases) > 1
    ids = [torch.from_numpy(case["ids"]) for case in cases]
    visual = [model.encode(torch.from_numpy(case["pixels"])) for case in cases]
    before = [sum(len(v) for v in visual[:i]) for i in range(len(cases))]
    index = [
        torch.where(own > 0, own + shift, 0)
        for row, seen, shift in zip(ids, visual, before, strict=True)
        for own in model.image_index(row[None], len(seen))
    ]
    packed = model(
        torch.cat(ids)[None],
        visual=torch.cat(visual)[None],
        index=torch.cat(index)[None],
        positions=torch.cat([torch.arange(len(row)) for row in ids])[None],
    )[0]
    alone = torch.cat([logits(model, case) for case in cases])
    assert torch.allclose(packed, alone, atol=1e-4)


def trainable(model):
    """A copy whose language model takes gradients, in training mode and with dropout."""
    copied = copy.deepcopy(model)
    settings = peft.LoraConfig(r=4, lora_dropout=0.2, target_modules=["q_proj", "to_kv", "ff.1"])
    torch.manual_seed(0)
    peft.get_peft_model(copied.lang_encoder, settings).train()
    for name, parameter in copied.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return copied


def gradients(model, case):
    torch.manual_seed(1)
    model(
        torch.from_numpy(case["ids"]), torch.from_numpy(case["pixels"])
    ).square().mean().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def test_checkpointed_gradients_equal_plain_gradients(model):
    plain, checkpointed = trainable(model), trainable(model)
    assert not plain.checkpointing
    checkpointed.checkpointing = True
    assert checkpointed.checkpointing
    expected, found = gradients(plain, IMAGE_CASE), gradients(checkpointed, IMAGE_CASE)
    assert any("gated_cross_attn_layer.attn.to_kv" in name for name in expected)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_checkpointing_keeps_one_tensor_a_layer(model):
    """Counts what autograd saves in the forward pass, parameters aside."""

    def saved(checkpointing):
        one = trainable(model)
        one.checkpointing = checkpointing
        parameters = {p.data_ptr() for p in one.parameters()}
        kept = {}

        def keep(tensor):
            if tensor.data_ptr() not in parameters:
                kept[tensor.data_ptr()] = tensor
            return tensor

        pixels = torch.from_numpy(IMAGE_CASE["pixels"])
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            one(torch.from_numpy(IMAGE_CASE["ids"]), pixels)
        return sum(tensor.nbytes for tensor in kept.values())

    assert saved(True) < saved(False) / 10


def test_checkpointing_leaves_a_cached_continuation_alone(model):
    checkpointed = copy.deepcopy(model)
    checkpointed.checkpointing = True
    pixels = torch.from_numpy(IMAGE_CASE["pixels"])
    expected = model.generate(IMAGE_CASE["ids"], pixels, max_new_tokens=4)
    assert checkpointed.generate(IMAGE_CASE["ids"], pixels, max_new_tokens=4) == expected


def test_generation_takes_resampled_tokens_instead_of_pixels(model):
    pixels = torch.from_numpy(IMAGE_CASE["pixels"])
    expected = model.generate(IMAGE_CASE["ids"], pixels, max_new_tokens=4)
    with torch.no_grad():
        visual = model.encode(pixels)[None]
    ids = IMAGE_CASE["ids"].tolist()
    assert model.generate(ids, visual=visual, max_new_tokens=4) == expected


@torch.no_grad()
def test_bfloat16_runs_and_stays_near(model):
    half = VisionLanguageModel.from_weights(read_flamingo(**CHECKPOINTS), torch.bfloat16)
    ids = torch.from_numpy(IMAGE_CASE["ids"])
    found = half(ids, torch.from_numpy(IMAGE_CASE["pixels"]).bfloat16())
    expected = logits(model, IMAGE_CASE)
    assert found.dtype is torch.bfloat16
    assert (found.float() - expected).norm() < 0.05 * expected.norm()
