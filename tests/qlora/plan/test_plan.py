"""The plan of memory and time, against counted models and the figures known for the 9B model."""

import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from bench.random_weights import random_weights
from bench.shapes import SHAPES, config_of
from lite.errors import BadInput
from qlora.model import VisionLanguageModel
from qlora.model.adapters import add_adapters
from qlora.plan.counts import Counts
from qlora.plan.devices import DEVICES, named_device, this_machine
from qlora.plan.memory import nf4_bits
from qlora.plan.plan import make_plan
from qlora.plan.report import duration, render
from qlora.plan.settings import Settings, Workload
from qlora.recipes.reading import read_recipe
from qlora.training.forecast import counts_of

PUBLISHED = ("q_proj", "k_proj", "v_proj", "o_proj", "to_q", "to_kv", "to_out", "ff.1", "ff.3")
ALL_LINEAR = (*PUBLISHED, "gate_proj", "up_proj", "down_proj")
LARGE = DEVICES["H200 141GB"]
MMGPT_9B = Counts(config_of("9b"))
# Recipes of published models, and their billions of parameters.
RECIPES = {
    "mmgpt-9b": 8.22,
    "mplug-owl-7b": 7.12,
    "llava-1.5-7b": 7.05,
    "idefics-9b": 8.93,
    "llama-3.2-11b-vision": 10.64,
}


def plan(device=LARGE, work=None, **settings):
    return make_plan(MMGPT_9B, Settings(**{"targets": PUBLISHED, **settings}), device, work)


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_are_those_of_the_model_that_is_built(name):
    config = config_of(name)
    model = VisionLanguageModel(config, image_id=config.llama.vocab_size + 1)
    assert Counts(config).total == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", RECIPES)
def test_a_published_model_is_planned_before_it_is_downloaded(name):
    counts = counts_of(read_recipe(name))
    assert counts.total == pytest.approx(RECIPES[name] * 1e9, rel=0.001)


def test_other_published_folders_of_the_same_sizes_are_planned_too():
    settings = ["model.name=null", "model.model=liuhaotian/llava-v1.5-7b"]
    assert counts_of(read_recipe("llava-1.5-7b", settings)).total == 7_050_316_800
    settings[1] = "model.model=somebody/llava-13b"
    with pytest.raises(BadInput, match=r"somebody/llava-13b.*mmgpt-9b, mplug-owl-7b, llava-1.5-7b"):
        counts_of(read_recipe("llava-1.5-7b", settings))


def test_operations_of_a_projector_are_two_for_each_weight_and_token():
    # LLaVA-1.5: linear layers of 1024 x 4096 and 4096 x 4096 on each of 576 tokens.
    counts = Counts(config_of("llava-1.5-7b"))
    projector = counts.vision_per_image - 2 * counts.vision_encoder * 577
    assert projector == 2 * 576 * (1024 * 4096 + 4096 * 4096)


@pytest.mark.parametrize(
    ("targets", "count"), [(PUBLISHED, 23_461_888), (ALL_LINEAR, 46_661_632)], ids=["9", "12"]
)
def test_adapters_of_the_9b_model(targets, count):
    assert plan(targets=targets).adapters == count


def test_adapters_are_counted_by_the_rules_that_peft_applies():
    weights = random_weights("tiny")
    model = VisionLanguageModel(weights.config, weights.special_ids["<image>"])
    targets = r"model\.layers\.[02]\..*(q_proj|down_proj)|.*ff\.1"
    add_adapters(model, rank=4, alpha=4, targets=targets, dora=False)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = make_plan(Counts(weights.config), Settings(targets, rank=4), LARGE)
    assert found.adapters == trained


def test_a_target_without_a_layer_is_refused_with_the_nearest():
    with pytest.raises(BadInput, match="q_proj"):
        plan(targets=("q_porj",))


def test_nf4_takes_4127_bits_for_a_thousand_values():
    assert nf4_bits(double=True) == pytest.approx(4.127, abs=0.001)
    assert nf4_bits(double=False) == 4.5


def test_resident_weights_of_the_9b_model():
    sizes = {c.name: c.bytes for c in plan().components}
    held = sizes["matrices of the base, NF4"] + sizes["rest of the base, bfloat16"]
    assert held == pytest.approx(5.17e9, rel=0.005)
    trained = sizes["adapters"] + sizes["gradients"] + sizes["optimizer"]
    assert trained == pytest.approx(0.38e9, rel=0.02)
    eight = {c.name: c.bytes for c in plan(optimizer="adamw_8bit").components}
    assert trained - sizes["optimizer"] + eight["optimizer"] == pytest.approx(0.23e9, rel=0.03)


def test_the_9b_model_trains_on_a_card_of_8_gb():
    small = plan(DEVICES["RTX 4060 8GB"])
    assert small.fits
    assert small.refusal() is None
    assert small.peak == pytest.approx(6.6e9, rel=0.05)  # 6 GB and the CUDA context


def test_operations_for_a_token_of_the_9b_model():
    adapters = plan().adapters
    per_token = MMGPT_9B.training_per_token(adapters)
    assert per_token == pytest.approx(46.4e9, rel=0.01)
    assert MMGPT_9B.training_per_token(adapters, checkpointing=False) == pytest.approx(
        31e9, rel=0.01
    )
    assert MMGPT_9B.training_per_token(adapters, images=False) < per_token


@pytest.mark.parametrize(("name", "tokens"), [("RTX 4090", 3500), ("A100 80GB", 6700)])
def test_rooflines_of_the_9b_model(name, tokens):
    assert plan(DEVICES[name]).time.roofline == pytest.approx(tokens, rel=0.03)


def test_more_of_anything_takes_more():
    base = plan()
    for change in (
        {"max_tokens": 1024},
        {"batch": 2},
        {"rank": 64},
        {"checkpointing": False},
        {"double_quantization": False},
        {"base": "none"},
        {"compute": "float32"},
        {"dora": True},
        {"targets": ALL_LINEAR},
    ):
        assert plan(**change).peak > base.peak, change
    assert plan(optimizer="paged_adamw_8bit").peak < base.peak


def test_time_grows_with_the_data_and_steps_with_it():
    settings = Settings(PUBLISHED, accumulate=10)
    once = Workload(1000, 500, 300.0, 100.0, images=1000)
    twice = Workload(2000, 1000, 300.0, 100.0, images=2000)
    first, second = (make_plan(MMGPT_9B, settings, LARGE, work).time for work in (once, twice))
    assert second.total == pytest.approx(2 * first.total)
    assert second.step == pytest.approx(first.step)
    assert (first.steps, second.steps) == (100, 200)
    kept = make_plan(MMGPT_9B, settings, LARGE, replace(twice, images=1000)).time
    assert kept.total < second.total


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"base": "none"}, "model.base=nf4"),
        ({"max_tokens": 4096}, "data.max_tokens="),
        ({"checkpointing": False, "max_tokens": 2048}, "training.checkpointing=true"),
        ({"batch": 8}, "training.batch="),
        ({"targets": ALL_LINEAR, "rank": 64}, "training.optimizer=paged_adamw_8bit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_too_little_memory_names_the_setting_that_makes_it_fit(settings, remedy):
    found = plan(DEVICES["RTX 4060 8GB"], **settings)
    assert not found.fits
    sentence = found.refusal()
    assert "RTX 4060 8GB" in sentence
    assert f"set {remedy}" in sentence
    assert sentence.endswith(".")


def test_no_setting_helps_a_device_without_memory():
    tiny = replace(DEVICES["T4"], memory=2 << 30)
    assert "take a device with" in plan(tiny).refusal()


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("4090", "RTX 4090"),
        ("rtx4090", "RTX 4090"),
        ("3060", "RTX 3060 12GB"),
        ("a100-80gb", "A100 80GB"),
        ("NVIDIA A100-SXM4-40GB", "A100 40GB"),
        ("Tesla T4", "T4"),
        ("h200", "H200 141GB"),
    ],
)
def test_gpus_by_the_names_people_use(said, name):
    assert named_device(said).name == name


@pytest.mark.parametrize("said", ["A100", "RTX 4070 Ti", "RTX 4090 Laptop GPU", "A10G", "2080", ""])
def test_a_name_that_is_no_single_gpu_is_refused_with_the_list(said):
    with pytest.raises(BadInput, match="A100 40GB"):
        named_device(said)


def test_this_machine_is_measured_where_nobody_states_its_speed():
    found = this_machine()
    assert found.memory > 0
    assert min(found.bf16, found.fp32, found.bandwidth) > 0


def test_recipes_have_a_plan():
    recipe = read_recipe("mmgpt-9b", [])
    found = make_plan(MMGPT_9B, Settings.from_recipe(recipe), named_device("4090"))
    assert found.adapters == 23_461_888
    assert found.time.steps == pytest.approx(1000 / 128)


def test_the_table_and_the_json_say_the_same():
    found = plan(DEVICES["RTX 3060 12GB"])
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(found))
    text = capture.get()
    values = json.loads(json.dumps(found.to_json()))
    assert f"{values['memory']['peak'] / 1e9:.3f}" in text
    assert all(part["name"] in text for part in values["memory"]["components"])
    assert "23,461,888 trained" in text
    assert "50%" in text
    assert math.isclose(values["time"]["total"], found.time.total)


def test_durations_read_well():
    said = [duration(s) for s in (0.0123, 59, 61, 3600 * 3 + 60, 86400 * 3)]
    assert said == ["0.012 s", "59 s", "1 min", "3 h 1 min", "3 d 0 h"]
