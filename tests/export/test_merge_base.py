"""What an adapter is merged into, and how far each merge is from what was trained."""

import dataclasses
import json
import weakref
from pathlib import Path

import bitsandbytes
import peft
import pytest
import torch
from torch import nn
from torch.nn.functional import linear

import export.drift as drift_module
from export.commands.export import command
from export.drift import BF16_LIMIT, FP32_LIMIT, Drift, LayerDrift, kind_of, measure
from export.merge_base import AUTO, FP16, NF4, choose, with_attend
from lite.bundle.attend import FOLLOWING, PRECEDING
from lite.bundle.manifest import MANIFEST
from lite.cli import run
from qlora.checkpoints.sources import TensorSource
from qlora.checkpoints.training_facts import TRAINING_FACTS, TrainingFacts, read_training_facts
from qlora.families.flamingo import read_flamingo
from qlora.model import VisionLanguageModel
from qlora.model.adapters import add_adapters, save_adapter
from qlora.model.model import fill
from qlora.model.nf4 import nf4_linear
from qlora.model.quantized import dequantized, in_4_bits, load_quantized
from qlora.model.weights import LoraMerged
from qlora.tiny.model import TinySizes, write_checkpoints
from tests.refusals import check_one_sentence

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3")
NF4_ERROR = 0.092  # |dequantized - W| / |W| of Gaussian weights
FACTS = {"base": "nf4", "double_quantization": True, "compute": "float32", "attend": PRECEDING}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    sizes = TinySizes(layers=4, interval=2, feed_forward=192, vision_layers=1)
    return write_checkpoints(tmp_path_factory.mktemp("tiny"), sizes)


def read(c, lora):
    return read_flamingo(Path(c.llama), c.clip, c.clip_weights, Path(c.flamingo), lora, PRECEDING)


def train(checkpoints, folder, dora):
    """A 4-bit model with an adapter that has moved, and the folder the adapter was saved in."""
    model = load_quantized(read(checkpoints, None), compute=torch.float32)
    adapters = add_adapters(model, rank=4, alpha=8, targets=TARGETS, dora=dora, seed=1)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in adapters.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
        elif "magnitude" in name:
            parameter.data *= 1.1
    save_adapter(adapters, folder)
    (folder / TRAINING_FACTS).write_text(json.dumps(FACTS))
    return model, folder


@pytest.fixture(scope="module")
def lora(checkpoints, tmp_path_factory):
    return train(checkpoints, tmp_path_factory.mktemp("lora"), dora=False)


@pytest.fixture(scope="module")
def dora(checkpoints, tmp_path_factory):
    return train(checkpoints, tmp_path_factory.mktemp("dora"), dora=True)


@pytest.fixture(scope="module")
def adapter(lora):
    return lora[1]


@pytest.fixture(scope="module")
def drift(checkpoints, adapter):
    return measure(merge(checkpoints, adapter))


def merge(checkpoints, folder, asked=AUTO):
    return choose(read(checkpoints, folder), read_training_facts(folder), asked)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_nf4_merge_is_the_model_that_was_trained(kind, checkpoints, request):
    model, folder = request.getfixturevalue(kind)
    chosen = merge(checkpoints, folder)
    assert chosen.into == NF4
    generator = torch.Generator().manual_seed(3)
    drifts = []
    for path, delta in chosen.weights.lora.deltas.items():
        module = model.lang_encoder.get_submodule(path)
        x = torch.randn(8, delta.a.shape[1], generator=generator)
        with torch.no_grad():
            expected = module(x)
            merged = linear(x, chosen.weights.tensors[f"lang_encoder.{path}.weight"])
            other = linear(x, delta.merged(chosen.original[f"lang_encoder.{path}.weight"]))
        assert float((merged - expected).norm() / expected.norm()) < FP32_LIMIT
        drifts.append(float((other - expected).norm() / expected.norm()))
    # The original weights are off by what NF4 rounds away.
    assert sum(drifts) / len(drifts) == pytest.approx(NF4_ERROR, rel=0.15)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_the_merged_model_answers_as_the_adapter_does(kind, checkpoints, request):
    model, folder = request.getfixturevalue(kind)
    chosen = merge(checkpoints, folder)
    ids = torch.tensor([1, 20, 30, model.image_id, 40, 50, 60])
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(4))
    logits = []
    for tensors in (
        chosen.weights.tensors,
        LoraMerged(chosen.original, chosen.weights.lora.deltas),
    ):
        merged = VisionLanguageModel(model.config, model.image_id).eval()
        fill(merged, tensors, torch.float32)
        with torch.no_grad():
            logits.append(merged(ids, pixels))
    with torch.no_grad():
        expected = model(ids, pixels)
    ours, other = (float((x - expected).norm() / expected.norm()) for x in logits)
    assert ours < FP32_LIMIT
    assert other > NF4_ERROR / 2


def test_the_merges_are_told_apart_on_real_activations(checkpoints, adapter, drift):
    assert [layer.path for layer in drift.layers] == [
        *merge(checkpoints, adapter).weights.lora.deltas
    ]
    assert list(drift.by_kind()) == ["self-attention", "cross-attention", "feed-forward"]
    for layer in drift.layers:
        assert layer.nf4_fp32 < FP32_LIMIT
        assert 5e-4 < layer.nf4 < BF16_LIMIT
        assert NF4_ERROR / 2 < layer.fp16 < NF4_ERROR * 1.5
    assert all(proof.holds for proof in drift.proofs())
    limits = {proof.step: proof.limit for proof in drift.proofs()}
    assert limits == {"adapter merged": 1e-5, "NF4 merge, bf16": 5e-3, "fp16 merge, bf16": None}


def test_the_measure_runs_the_model_that_was_trained(checkpoints, dora, monkeypatch):
    """Each layer is compared on the input that the 4-bit model with its adapters gives it."""
    model, folder = dora
    inputs, rows = {}, []
    run_row = drift_module._run

    def keep(path):
        return lambda module, args: inputs.setdefault(path, []).append(args[0])

    def both(streamed, probes):
        rows.append(len(probes))
        for runs in (streamed, model):
            for path in ("model.layers.3.decoder_layer.self_attn.o_proj", "lm_head"):
                runs.lang_encoder.get_submodule(path).register_forward_pre_hook(keep(path))
            run_row(runs, probes)

    monkeypatch.setattr(drift_module, "_run", both)
    drift = measure(merge(checkpoints, folder))
    assert rows == [2]
    assert all(layer.nf4_fp32 < FP32_LIMIT for layer in drift.layers)
    for streamed, trained in inputs.values():
        assert float((streamed - trained).norm() / trained.norm()) < FP32_LIMIT


def test_the_ratio_is_of_the_weights(checkpoints, adapter, drift):
    chosen, layer = merge(checkpoints, adapter), drift.layers[0]
    name = f"lang_encoder.{layer.path}.weight"
    base = chosen.trained[name]
    change = chosen.weights.tensors[name] - base
    ratio = (base - chosen.original[name]).norm() / change.norm()
    assert layer.ratio == pytest.approx(float(ratio), rel=1e-4)


def test_the_limits_refuse_the_base_that_was_not_trained_around(drift):
    swapped = [
        LayerDrift(x.path, x.kind, nf4_fp32=x.fp16, nf4=x.fp16, fp16=x.nf4, ratio=x.ratio)
        for x in drift.layers
    ]
    assert [proof.holds for proof in Drift(NF4, swapped).proofs()] == [False, False, True]
    assert all(proof.limit is None for proof in Drift(FP16, swapped).proofs())


def test_a_layer_that_is_not_a_number_is_refused():
    layer = LayerDrift("a", "head", nf4_fp32=float("nan"), nf4=float("nan"), fp16=0.1, ratio=1.0)
    fine = LayerDrift("b", "head", nf4_fp32=1e-7, nf4=3e-3, fp16=0.1, ratio=1.0)
    assert [p.holds for p in Drift(NF4, [layer, fine]).proofs()] == [False, False, True]
    assert [p.holds for p in Drift(NF4, [fine, fine, layer]).proofs()] == [False, False, True]


def test_the_base_equals_what_linear4bit_holds_bit_for_bit(checkpoints, tmp_path):
    weights = read(checkpoints, Path(checkpoints.lora))
    facts = TrainingFacts(True, True, torch.bfloat16, None)
    base = choose(weights, facts).trained
    model = load_quantized(weights, compute=torch.bfloat16)
    quantized = [name for name in weights.base if in_4_bits(name, weights.base.shape(name))]
    assert len(quantized) == 4 * 7 + 2 * 5
    for name in quantized:
        ours = base[name]
        module = model.get_submodule(name.removesuffix(".weight"))
        assert torch.equal(ours, dequantized(module, torch.bfloat16))
        stock = bitsandbytes.nn.Params4bit(weights.base[name].float(), quant_type="nf4").to("cpu")
        exact = bitsandbytes.functional.dequantize_4bit(stock.data, stock.quant_state)
        assert torch.equal(ours, exact.bfloat16())
        assert ours.dtype == base.dtype(name)
    for name in set(weights.base) - {*quantized}:
        assert torch.equal(base[name], weights.base[name])


def test_without_double_quantization_the_values_differ(checkpoints):
    weights = read(checkpoints, Path(checkpoints.lora))
    name = next(name for name in weights.base if in_4_bits(name, weights.base.shape(name)))
    single, double = (
        choose(weights, TrainingFacts(True, twice, torch.float32, None)).trained[name]
        for twice in (False, True)
    )
    assert 0 < float((single - double).norm() / double.norm()) < 0.02


def test_pefts_own_merge_goes_back_to_4_bits_and_drowns_the_adapter():
    """What `merge_and_unload` would have given, on a layer whose update is 2 % of it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(1024, 1024, generator=generator) / 32
    model = nn.ModuleDict({"q": nf4_linear(weight, torch.float32, "cpu")})
    model.is_loaded_in_4bit = True
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=16, target_modules=["q"]))
    layer = adapted.base_model.model["q"]
    a, b = layer.lora_A["default"].weight.data, layer.lora_B["default"].weight.data
    b.copy_(torch.randn(b.shape, generator=generator))
    b *= 0.02 * weight.norm() / (b @ a).norm()
    delta = b @ a
    x = torch.randn(64, 1024, generator=generator)
    with torch.no_grad():
        expected = layer(x)
        ours = (x.bfloat16() @ (dequantized(layer.base_layer) + delta).bfloat16().T).float()
        with pytest.warns(UserWarning, match="rounding"):
            theirs = adapted.merge_and_unload()["q"](x)
    assert float((ours - expected).norm() / expected.norm()) < BF16_LIMIT
    assert float((theirs - expected).norm() / expected.norm()) > 4 * BF16_LIMIT


class Watched(TensorSource):
    """A source that knows how many of the decoder's tensors it gave are still alive."""

    def __init__(self, source):
        self.source, self.alive, self.most, self.reads = source, 0, 0, 0

    def __getitem__(self, name):
        tensor = self.source[name].clone()
        self.reads += 1
        if ".layers." in name and name.startswith("lang_encoder"):
            self.alive += 1
            self.most = max(self.most, self.alive)
            weakref.finalize(tensor, self._gone)
        return tensor

    def _gone(self):
        self.alive -= 1

    def __iter__(self):
        return iter(self.source)

    def __len__(self):
        return len(self.source)

    def shape(self, name):
        return self.source.shape(name)

    def where(self, name):
        return self.source.where(name)


def test_matrices_are_read_one_by_one(checkpoints, adapter):
    weights = read(checkpoints, adapter)
    watched = Watched(weights.base)
    weights = dataclasses.replace(weights, base=watched)
    chosen = choose(weights, read_training_facts(adapter))
    assert watched.reads == 0
    for name in chosen.weights.tensors:
        chosen.weights.tensors[name]
    assert watched.most <= 2
    watched.most = 0
    measure(chosen)
    layer = [n for n in weights.base if n.startswith("lang_encoder.model.layers.1.")]
    assert watched.most <= len(layer)


def test_auto_goes_by_what_the_folder_says(checkpoints, adapter, tmp_path):
    assert merge(checkpoints, adapter).into == NF4
    weights = read(checkpoints, adapter)
    assert choose(weights, None).into == FP16
    assert choose(weights, None).trained is None
    assert choose(weights, None, NF4).into == NF4
    unquantized = TrainingFacts(False, True, torch.bfloat16, None)
    assert choose(weights, unquantized).into == FP16
    original = merge(checkpoints, adapter, FP16)
    assert original.into == FP16
    assert original.trained is not None
    assert original.weights.base is original.original


def test_conflicts_are_one_sentence(checkpoints, adapter):
    weights = read(checkpoints, adapter)
    facts = TrainingFacts(False, True, torch.bfloat16, FOLLOWING)
    with pytest.raises(Exception, match="unquantized") as error:
        choose(weights, facts, NF4)
    check_one_sentence(error, adapter)
    with pytest.raises(Exception, match="there is none") as error:
        choose(read(checkpoints, None), None, NF4)
    check_one_sentence(error, "--lora")
    with pytest.raises(Exception, match="was trained with following") as error:
        with_attend(weights, facts, PRECEDING)
    check_one_sentence(error, adapter, PRECEDING)
    assert with_attend(weights, facts, None).config.attend == FOLLOWING
    assert with_attend(weights, None, None).config.attend == PRECEDING


BAD_FACTS = {
    "not JSON": ("{", "JSON"),
    "a list": ("[]", "object"),
    "no base": ("{}", "base"),
    "another base": ('{"base": "int3"}', "int3"),
    "a number for a switch": ('{"base": "nf4", "double_quantization": 1}', "double_quantization"),
    "an unknown type": ('{"base": "nf4", "compute": ["bfloat16"]}', "compute"),
    "an unknown rule": ('{"base": "nf4", "attend": "sideways"}', "attend"),
}


@pytest.mark.parametrize("case", BAD_FACTS)
def test_corrupt_training_facts_are_one_sentence(case, tmp_path):
    text, part = BAD_FACTS[case]
    (tmp_path / TRAINING_FACTS).write_text(text)
    with pytest.raises(Exception, match=r"training\.json") as error:
        read_training_facts(tmp_path)
    check_one_sentence(error, tmp_path, part)


def test_missing_facts_and_unknown_keys_are_fine(tmp_path):
    assert read_training_facts(tmp_path) is None
    assert read_training_facts(tmp_path / "lora.pt") is None
    (tmp_path / TRAINING_FACTS).write_text('{"base": "nf4", "steps": 3, "colour": "blue"}')
    assert read_training_facts(tmp_path) == TrainingFacts(True, True, torch.bfloat16, None)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("model.layers.0.decoder_layer.self_attn.q_proj", "self-attention"),
        ("model.layers.0.decoder_layer.mlp.up_proj", "feed-forward"),
        ("model.layers.3.gated_cross_attn_layer.attn.to_kv", "cross-attention"),
        ("model.layers.3.gated_cross_attn_layer.ff.1", "feed-forward"),
        ("lm_head", "head"),
    ],
)
def test_every_module_has_a_kind(path, kind):
    assert kind_of(path) == kind


def lite_export(capsys, checkpoints, *arguments):
    c = checkpoints
    parts = ("--llama", c.llama, "--clip", c.clip, "--clip-weights", c.clip_weights)
    with pytest.raises(SystemExit) as stop:
        run(command, [*map(str, (*parts, "--flamingo", c.flamingo, *arguments))])
    return stop.value.code, capsys.readouterr()


def test_the_command_merges_into_what_was_trained(checkpoints, adapter, tmp_path, capsys):
    out = tmp_path / "b"
    options = ("--lora", adapter, "--precision", "fp32", "-o", out)
    code, printed = lite_export(capsys, checkpoints, *options, "--json")
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert report["drift"]["merged_into"] == "nf4"
    assert len(report["drift"]["layers"]) == 4 * 4 + 2 * 5
    assert [p["step"] for p in report["proofs"]][2:5] == [
        "adapter merged",
        "NF4 merge, bf16",
        "fp16 merge, bf16",
    ]
    manifest = json.loads((out / MANIFEST).read_text())
    assert manifest["proofs"] == report["proofs"]
    assert manifest["attend"] == PRECEDING
    code, printed = lite_export(capsys, checkpoints, *options, "--force", "--merge-base", "fp16")
    assert code == 0, printed.err
    assert "self-attention (16)" in printed.out
    assert "--merge-base nf4" in printed.err


def test_without_training_facts_nothing_is_quantized(checkpoints, adapter, tmp_path, capsys):
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / file).write_bytes((adapter / file).read_bytes())
    options = ("--lora", folder, "--precision", "fp32", "-o", tmp_path / "b", "--json")
    code, printed = lite_export(capsys, checkpoints, *options)
    assert code == 0, printed.err
    report = json.loads(printed.out)
    assert "drift" not in report
    assert "adapter merged" in [proof["step"] for proof in report["proofs"]]


def test_the_command_refuses_bad_facts_before_it_writes(checkpoints, adapter, tmp_path, capsys):
    (tmp_path / "adapter").mkdir()
    for file in adapter.iterdir():
        (tmp_path / "adapter" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "adapter" / TRAINING_FACTS).write_text("{")
    options = ("--lora", tmp_path / "adapter", "-o", tmp_path / "b")
    code, printed = lite_export(capsys, checkpoints, *options)
    assert code == 2
    assert printed.err.startswith("Error: ")
    assert not (tmp_path / "b").exists()
