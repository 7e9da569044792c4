"""mPLUG-Owl against the public reference implementation, from pixels to logits and turns."""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import lite
from bench import chat
from export.bundle import write_bundle
from export.precision import precision
from export.verify import kl_divergence
from lite.errors import BadInput
from lite.image.preprocessing import load_image, to_pixels
from qlora.families.recognition import read_model
from qlora.model import ModelWeights, VisionLanguageModel
from tests.refusals import check_one_sentence

FOLDER = Path(__file__).parents[2] / "fixtures" / "mplug-owl-tiny"
PROMPTS = json.loads((FOLDER / "cases.json").read_text())["prompts"]
EXPECTED = dict(np.load(FOLDER / "expected.npz"))
CASES = range(len(PROMPTS))
WITH_IMAGES = [i for i in CASES if PROMPTS[i]["images"]]


@cache
def weights() -> ModelWeights:
    return read_model(FOLDER)


@cache
def torch_model() -> VisionLanguageModel:
    return VisionLanguageModel.from_weights(weights())


def ids_of(case: int) -> np.ndarray:
    """The reference writes -1 where an image stands."""
    ids = EXPECTED[f"ids_{case}"]
    return np.where(ids == -1, weights().special_ids["<image>"], ids)


def images_of(case: int) -> list[Path]:
    return [FOLDER / "images" / f"{n}.png" for n in PROMPTS[case]["images"]]


def pixels_of(case: int) -> torch.Tensor | None:
    return torch.from_numpy(EXPECTED[f"pixels_{case}"]) if PROMPTS[case]["images"] else None


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("owl")

    def made(kind: str) -> Path:
        if not (folder / kind).exists():
            write_bundle(weights(), folder / kind, precision(kind), lambda bundle: [])
        return folder / kind

    return made


@pytest.mark.parametrize("case", CASES)
def test_token_ids_equal_the_reference(case: int) -> None:
    assert weights().chat_tokenizer().tokenize(PROMPTS[case]["text"]) == ids_of(case).tolist()


@pytest.mark.parametrize("case", WITH_IMAGES)
def test_pixels_and_visual_tokens_equal_the_reference(case: int) -> None:
    preprocessing = weights().config.preprocessing
    ours = np.stack([to_pixels(load_image(path), preprocessing) for path in images_of(case)])
    assert np.abs(ours - EXPECTED[f"pixels_{case}"]).max() <= 1e-3
    model, pixels = torch_model(), pixels_of(case)
    assert pixels is not None
    with torch.no_grad():
        vision = model.config.encoder.encode(model.vision_encoder, pixels)[0].numpy()
        abstracted = model.encode(pixels).numpy()
    assert np.abs(vision - EXPECTED[f"vision_{case}"]).max() <= 1e-5
    assert np.abs(abstracted - EXPECTED[f"abstracted_{case}"]).max() <= 1e-5


@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_reference(case: int, bundle: Any) -> None:
    expected, ids = EXPECTED[f"logits_{case}"], ids_of(case)
    with torch.no_grad():
        logits = torch_model()(torch.from_numpy(ids), pixels_of(case)).numpy()
    assert np.abs(logits - expected).max() <= 1e-4
    assert np.abs(lite.load(bundle("fp32")).score(ids, images_of(case)) - expected).max() <= 1e-3


def test_int8_stays_close_to_the_reference(bundle: Any) -> None:
    model = lite.load(bundle("int8"))
    divergences = [
        kl_divergence(EXPECTED[f"logits_{case}"], model.score(ids_of(case), images_of(case)))
        for case in CASES
    ]
    assert np.concatenate(divergences).mean() <= 0.01


def test_a_chat_continues_from_the_cache_and_from_a_file(bundle: Any, tmp_path: Path) -> None:
    model = lite.load(bundle("fp32"))
    chat = model.chat()
    first, second, third = (FOLDER / "images" / f"{n}.png" for n in range(3))
    list(chat.ask("how many cats are there?", [first, second], max_tokens=5))
    before = len(chat.prompt()[0])
    list(chat.ask("and there?", third, max_tokens=5))
    ids, images = chat.prompt()
    assert ids.count(model.tokenizer.image) == 3 * 65
    assert len(images) == 3
    # The second turn computes its own tokens only, the new image's 65 among them.
    model.decoder.logits(ids[:before], images[:2])
    cached = model.decoder.logits(ids, images)
    assert model.decoder.computed == len(ids) - before
    assert np.abs(cached - model.decoder.score(ids, images)[-1]).max() <= 1e-4
    # Text before an image is not computed again when the image comes later.
    start = ids.index(model.tokenizer.image)
    model.decoder.logits(ids[:start])
    assert model.decoder.reusable(ids, images) == start
    # Other images in the same places are other prefixes.
    model.decoder.logits(ids, images)
    assert model.decoder.reusable(ids, images[::-1]) == start
    chat.save(tmp_path / "s.session", kv=True)
    again = lite.load(bundle("fp32")).open(tmp_path / "s.session")
    assert again.prompt()[0] == ids
    assert np.abs(again.decoder.logits(ids, again.prompt()[1]) - cached).max() <= 1e-4


def test_neighbouring_images_stay_two(bundle: Any) -> None:
    """Upstream makes one of two images with nothing between."""
    model, image = lite.load(bundle("fp32")), weights().special_ids["<image>"]
    ids = np.array([1, *[image] * 130, 5, 6])
    pictures = [FOLDER / "images" / "0.png", FOLDER / "images" / "1.png"]
    pixels = torch.from_numpy(
        np.stack([to_pixels(load_image(p), weights().config.preprocessing) for p in pictures])
    )
    with torch.no_grad():
        expected = torch_model()(torch.from_numpy(ids), pixels).numpy()
        turned = torch_model()(torch.from_numpy(ids), pixels.flip(0)).numpy()
    logits = model.score(ids, pictures)
    assert np.abs(logits - expected).max() <= 1e-3
    assert np.abs(turned - expected).max() > 1e-2


def test_torch_generates_the_same_with_and_without_a_cache() -> None:
    ids, pixels = ids_of(1), pixels_of(1)
    cached = torch_model().generate(ids, pixels, max_new_tokens=6)
    assert cached == torch_model().generate(ids, pixels, max_new_tokens=6, use_cache=False)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_images_and_tags_must_agree(count: int, bundle: Any) -> None:
    pictures = [FOLDER / "images" / "0.png"] * count
    with pytest.raises(BadInput, match=rf"130 <image> tokens \(65 for each image\) but {count}"):
        lite.load(bundle("fp32")).score(ids_of(1), pictures)


def test_a_part_of_an_image_is_refused(bundle: Any) -> None:
    image = weights().special_ids["<image>"]
    ids = [1, *[image] * 60, 5, *[image] * 5]
    with pytest.raises(BadInput, match="a part of one"):
        lite.load(bundle("fp32")).score(ids, [FOLDER / "images" / "0.png"])


def _adapter(folder: Path, module: str, hidden: int = 64) -> dict[str, torch.Tensor]:
    """A LoRA as mPLUG-Owl's training saves it, on one linear layer."""
    folder.mkdir()
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 32, "target_modules": "q_proj"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    draw = torch.Generator().manual_seed(0)
    sides = {
        "A": torch.randn(8, hidden, generator=draw) * 0.1,
        "B": torch.randn(hidden, 8, generator=draw) * 0.1,
    }
    key = f"base_model.model.{module}.lora_"
    torch.save(
        {f"{key}{side}.weight": t for side, t in sides.items()}, folder / "adapter_model.bin"
    )
    return sides


def test_the_published_lora_is_merged(tmp_path: Path) -> None:
    module = "language_model.model.layers.1.self_attn.q_proj"
    sides = _adapter(tmp_path / "lora", module)
    merged = read_model(FOLDER, tmp_path / "lora").tensors
    name = "lang_encoder.model.layers.1.decoder_layer.self_attn.q_proj.weight"
    expected = weights().base[name] + 32 / 8 * sides["B"] @ sides["A"]
    assert torch.allclose(merged[name], expected)


@pytest.mark.parametrize(
    ("module", "hidden"),
    [
        ("vision_model.encoder.layers.9.self_attn.dense", 64),
        ("language_model.model.layers.9.self_attn.q_proj", 64),
        ("language_model.model.layers.1.self_attn.q_proj", 32),
    ],
    ids=["tower", "more layers", "another width"],
)
def test_a_lora_of_another_base_is_refused(tmp_path: Path, module: str, hidden: int) -> None:
    _adapter(tmp_path / "lora", module, hidden)
    with pytest.raises(BadInput) as error:
        read_model(FOLDER, tmp_path / "lora")
    check_one_sentence(error, module.split(".")[-1])


def test_a_lora_of_the_fused_tower_is_merged(tmp_path: Path) -> None:
    """The same tensors as of a folder whose fused matrix was merged as it lies there."""
    name = "vision_model.encoder.layers.0.self_attn.query_key_value"
    rows, columns = torch.load(FOLDER / "pytorch_model.bin")[f"{name}.weight"].shape
    a, b = torch.randn(8, columns), torch.randn(rows, 8)
    lora = tmp_path / "lora"
    lora.mkdir()
    settings = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["x"]}
    (lora / "adapter_config.json").write_text(json.dumps(settings))
    key = f"base_model.model.{name}.lora_"
    torch.save({f"{key}A.weight": a, f"{key}B.weight": b}, lora / "adapter_model.bin")

    def merge(tensors: Any, config: Any) -> None:
        tensors[f"{name}.weight"] = tensors[f"{name}.weight"].float() + 2 * b @ a

    expected, found = (
        read_model(_damaged(tmp_path, merge)).tensors,
        read_model(FOLDER, lora).tensors,
    )
    ours = "vision_encoder.transformer.resblocks.0.attn.in_proj_weight"
    assert torch.allclose(found[ours], expected[ours], atol=1e-5)


def _damaged(tmp_path: Path, change: Any) -> Path:
    folder = tmp_path / "owl"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.npz", "images"))
    tensors = torch.load(folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    change(tensors, config)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t, c: c.update(model_type="blip-2"), "blip-2"),
        (lambda t, c: t.pop("query_tokens"), "query_tokens"),
        (lambda t, c: t.pop("abstractor.vit_eos"), "vit_eos"),
        (lambda t, c: t.update({"temporal_query_tokens": t["query_tokens"]}), "video"),
        (lambda t, c: t.update({"other.weight": t["query_tokens"]}), "other.weight"),
        (
            lambda t, c: t.update(
                {
                    "abstractor.visual_fc.weight": torch.zeros(32, 64),
                    "abstractor.visual_fc.bias": torch.zeros(32),
                    "abstractor.vit_eos": torch.zeros(1, 1, 32),
                }
            ),
            "width 32",
        ),
        (lambda t, c: c["vision_config"].update(hidden_act="relu"), "relu"),
        (lambda t, c: c.pop("text_config"), "text_config"),
    ],
)
def test_what_does_not_serve_is_named(tmp_path: Path, change: Any, named: str) -> None:
    with pytest.raises(BadInput) as error:
        read_model(_damaged(tmp_path, change))
    check_one_sentence(error, named)


def test_lite_bench_measures_it_with_whole_images(bundle: Any) -> None:
    small = ["--repeat", "1", "--prompt", "4", "--answer", "2", "--turns", "1", "--depth", "0"]
    done = CliRunner().invoke(chat.command, ["-m", str(bundle("int8")), *small, "--json"])
    assert done.exit_code == 0, done.output
    (engine,) = json.loads(done.stdout)["engines"].values()
    assert engine["engine"]["image_tokens"] == weights().config.latents
    assert engine["ttft 1"]["seconds"]["mean"] > 0
