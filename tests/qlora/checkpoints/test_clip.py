"""CLIP's vision tower reads with the activation it was trained with, and only if it fits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file

from lite.errors import BadInput
from qlora.checkpoints.clip import ClipCheckpoint, read_clip

CLIP = Path(__file__).parents[2] / "fixtures" / "mmgpt-tiny" / "clip"
CONFIG, WEIGHTS = CLIP / "tiny-clip-64.json", CLIP / "open_clip_pytorch_model.bin"


def tensors() -> dict[str, Any]:
    return torch.load(WEIGHTS, weights_only=True)


def saved(folder: Path, content: object) -> str:
    torch.save(content, folder / "clip.bin")
    return str(folder / "clip.bin")


def config_file(folder: Path, name: str = "clip.json", **values: Any) -> str:
    config = json.loads(CONFIG.read_text())
    config["vision_cfg"] |= values.pop("vision", {})
    (folder / name).write_text(json.dumps(config | values))
    return str(folder / name)


def check_refused(name: str, weights: str, *parts: object) -> None:
    with pytest.raises(BadInput) as error:
        read_clip(name, weights)
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


def test_the_fixture_reads() -> None:
    clip = read_clip(str(CONFIG), str(WEIGHTS))
    assert clip.config["quick_gelu"] is True
    assert clip.image_size == 56
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN
    assert clip.std == open_clip.OPENAI_DATASET_STD
    assert clip.tensors.shape("conv1.weight") == (64, 3, 14, 14)
    assert not any(name.startswith(("visual.", "text")) for name in clip.tensors)


def test_the_tensors_fill_the_tower_that_the_config_builds() -> None:
    clip = read_clip(str(CONFIG), str(WEIGHTS))
    parts = ("embed_dim", "vision_cfg", "text_cfg", "quick_gelu")
    tower = open_clip.CLIP(**{part: clip.config[part] for part in parts}).visual
    tower.load_state_dict(dict(clip.tensors))


@pytest.mark.parametrize(
    "change",
    [
        lambda t: {"state_dict": t, "epoch": 3},
        lambda t: {f"module.{name}": tensor for name, tensor in t.items()},
        lambda t: {name: tensor for name, tensor in t.items() if name.startswith("visual.")},
        lambda t: {n if n.startswith("visual.") else f"text.{n}": x for n, x in t.items()},
        lambda t: t | {"logit_bias": torch.ones(1), "token_embedding.weight": torch.ones(9, 9)},
        lambda t: t | {"input_resolution": torch.tensor(56), "vocab_size": torch.tensor(9)},
    ],
)
def test_every_layout_gives_the_same_tower(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    clip = read_clip(str(CONFIG), saved(tmp_path, change(tensors())))
    expected = read_clip(str(CONFIG), str(WEIGHTS)).tensors
    assert set(clip.tensors) == set(expected)
    assert all(torch.equal(clip.tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize("name", [n for n in tensors() if n.startswith("visual.")][::5])
def test_missing_tensors_and_wrong_shapes_are_named(tmp_path: Path, name: str) -> None:
    content = tensors()
    tensor = content.pop(name)
    check_refused(str(CONFIG), saved(tmp_path, content), name.removeprefix("visual."), "lacks")
    content[name] = torch.ones(*tensor.shape, 1)
    check_refused(str(CONFIG), saved(tmp_path, content), name.removeprefix("visual."), "shape")


@pytest.mark.parametrize("name", ["visual.attn_pool.query", "vision_model.x", "extra"])
def test_unexpected_tensors_are_named(tmp_path: Path, name: str) -> None:
    content = tensors() | {name: torch.ones(1)}
    check_refused(str(CONFIG), saved(tmp_path, content), name.removeprefix("visual."))


def test_a_file_of_the_text_tower_alone_is_refused(tmp_path: Path) -> None:
    content = {name: t for name, t in tensors().items() if not name.startswith("visual.")}
    check_refused(str(CONFIG), saved(tmp_path, content), "visual")


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "vit_base_patch16_224"},
        {"layers": [3, 4, 6, 3]},
        {"attentional_pool": True},
        {"no_ln_pre": True},
        {"ls_init_value": 0.1},
        {"pos_embed_type": "sin_cos_2d"},
        {"stem": [[8, 2]]},
        {"stem": [[8, 14], [8]]},
        {"stem": "conv"},
        {"qk_norm": True},
        {"norm_kwargs": {"eps": 1e-3}},
        {"unknown_setting": 1},
        {"image_size": [56, 28]},
        {"image_size": 7},
        {"layers": 10**9},
        {"layers": 0},
        {"width": "64"},
        {"patch_size": None},
        {"mlp_ratio": "x"},
        {"head_width": 0},
    ],
)
def test_other_towers_are_refused(tmp_path: Path, vision: dict[str, object]) -> None:
    name = config_file(tmp_path, vision=vision)
    check_refused(name, str(WEIGHTS), name)


@pytest.mark.parametrize(
    "values",
    [
        {"vision_cfg": None},
        {"embed_dim": None},
        {"embed_dim": "32"},
        {"model_cfg": 3},
        {"preprocess_cfg": []},
        {"preprocess_cfg": {"interpolation": "bilinear"}},
        {"preprocess_cfg": {"resize_mode": "squash"}},
        {"preprocess_cfg": {"mean": [0.5]}},
        {"preprocess_cfg": {"std": [0, 1, 1]}},
    ],
)
def test_unusable_configs_are_refused(tmp_path: Path, values: dict[str, object]) -> None:
    config = json.loads(CONFIG.read_text()) | values
    (tmp_path / "clip.json").write_text(json.dumps(config))
    check_refused(str(tmp_path / "clip.json"), str(WEIGHTS), "clip.json")


def test_a_config_that_wraps_the_model_is_read(tmp_path: Path) -> None:
    inner = json.loads(CONFIG.read_text())
    outer = {"model_cfg": inner, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3], "std": None}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(outer))
    clip = read_clip(str(tmp_path / "open_clip_config.json"), str(WEIGHTS))
    assert clip.mean == (0.1, 0.2, 0.3)
    assert clip.std == open_clip.OPENAI_DATASET_STD
    assert clip.config["quick_gelu"] is True


def test_a_config_beside_the_weights_that_disagrees_is_an_error(tmp_path: Path) -> None:
    weights = saved(tmp_path, tensors())
    config_file(tmp_path, "open_clip_config.json")
    name = config_file(tmp_path, quick_gelu=False)
    check_refused(name, weights, "quick_gelu True", "open_clip_config.json")
    assert read_clip(str(CONFIG), weights).config["quick_gelu"] is True


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("ViT-L-99", str(WEIGHTS)),
        ("ViT-L-14", "no_such_tag"),
        ("ViT-L-14", str(CLIP / "missing.bin")),
        (str(CLIP / "missing.json"), str(WEIGHTS)),
        (str(CONFIG), "openai"),
    ],
)
def test_unknown_names_are_refused(name: str, weights: str) -> None:
    check_refused(name, weights)


@pytest.fixture(scope="module")
def small_vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of ViT-B-32's shapes; expanded zeros keep the file small."""
    with torch.device("meta"):
        model = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32"))
    visual = {
        f"visual.{name}": torch.zeros(1, dtype=torch.float16).expand(value.shape)
        for name, value in model.visual.state_dict().items()
    }
    path = tmp_path_factory.mktemp("clip") / "vit.bin"
    torch.save(visual, path)
    return path


def download(monkeypatch: pytest.MonkeyPatch, result: object) -> None:
    def fake(settings: dict[str, Any], **_: object) -> object:
        assert settings["url"] or settings["hf_hub"]
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(open_clip, "download_pretrained", fake)


def vit(weights: str) -> ClipCheckpoint:
    return read_clip("ViT-B-32", weights)


def test_the_tag_wins_over_a_config_that_says_gelu(
    monkeypatch: pytest.MonkeyPatch, small_vit: Path
) -> None:
    download(monkeypatch, str(small_vit))
    assert not open_clip.get_model_config("ViT-B-32").get("quick_gelu")
    assert vit("openai").config["quick_gelu"] is True
    assert vit("laion2b_s34b_b79k").config["quick_gelu"] is False
    assert read_clip("ViT-B-32-quickgelu", "openai").config["quick_gelu"] is True
    assert vit("openai").image_size == 224


def test_a_weights_file_takes_the_activation_of_the_named_model(small_vit: Path) -> None:
    assert vit(str(small_vit)).config["quick_gelu"] is False
    assert read_clip("ViT-B-32-quickgelu", str(small_vit)).config["quick_gelu"] is True


@pytest.mark.parametrize("result", [OSError("no network"), RuntimeError("a\nb"), ""])
def test_a_failed_download_is_one_sentence(monkeypatch: pytest.MonkeyPatch, result: object) -> None:
    download(monkeypatch, result)
    check_refused("ViT-B-32", "openai", "openai", "ViT-B-32")


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "x.safetensors")
    assert len(read_clip(str(CONFIG), str(tmp_path / "x.safetensors")).tensors) == 44
