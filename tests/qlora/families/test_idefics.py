"""IDEFICS against transformers, with random weights of two sizes and gates that are open."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import IdeficsConfig, IdeficsForVisionText2Text

import lite
from export.bundle import write_bundle
from export.precision import precision
from export.verify import kl_divergence
from lite.errors import BadInput
from lite.image.preprocessing import load_image, to_pixels
from qlora.families.recognition import read_model
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.plan import Counts
from tests.conftest import FIXTURE
from tests.refusals import check_one_sentence

FAKE, IMAGE = 400, 401
SIZES: tuple[dict[str, Any], ...] = (
    {
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "cross_layer_interval": 2,
        "qk_layer_norms": True,
        "alpha_type": "float",
        "vision_config": {
            "embed_dim": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 28,
            "patch_size": 7,
        },
        "perceiver_config": {
            "resampler_n_latents": 6,
            "resampler_depth": 2,
            "resampler_n_heads": 2,
            "resampler_head_dim": 24,
            "qk_layer_norms_perceiver": True,
        },
    },
    {
        "hidden_size": 96,
        "intermediate_size": 200,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "cross_layer_interval": 1,
        "qk_layer_norms": False,
        "alpha_type": "vector",
        "vision_config": {
            "embed_dim": 64,
            "intermediate_size": 100,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 36,
            "patch_size": 9,
        },
        "perceiver_config": {
            "resampler_n_latents": 5,
            "resampler_depth": 1,
            "resampler_n_heads": 3,
            "resampler_head_dim": 16,
            "qk_layer_norms_perceiver": False,
        },
    },
)


def reference(size: dict[str, Any]) -> Any:
    config = IdeficsConfig(
        **size,
        vocab_size=400,
        additional_vocab_size=2,
        max_position_embeddings=256,
        use_resampler=True,
        alpha_initializer="ones",
    )
    torch.manual_seed(0)
    model = IdeficsForVisionText2Text(config).eval()
    for name, parameter in model.named_parameters():
        norm = parameter.dim() == 1 and name.endswith("weight")
        spread = parameter.shape[-1] ** -0.5 if parameter.dim() == 2 else 0.1
        center = 1.0 if norm else 0.5 if "alpha" in name else 0.0
        parameter.data = center + spread * torch.randn_like(parameter)
    return model


def write(model: Any, folder: Path) -> Path:
    """As `save_pretrained` writes it, with a tokenizer."""
    model.save_pretrained(folder)
    shutil.copy(FIXTURE / "llama" / "tokenizer.model", folder)
    added = {"<fake_token_around_image>": FAKE, "<image>": IMAGE}
    (folder / "added_tokens.json").write_text(json.dumps(added))
    return folder


@pytest.fixture(scope="module", params=SIZES, ids=["64", "96"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = reference(request.param)
    return model, write(model, tmp_path_factory.mktemp("idefics") / "hf")


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(count)
    shapes = ((40, 70, 3), (90, 30, 3))
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes[:count]]


def prompt(images: int) -> np.ndarray:
    shown = [token for _ in range(images) for token in (FAKE, IMAGE, FAKE, 30)]
    return np.array([1, 20, 31, *shown, 45, 50, 7, 8])


def pixels_of(weights: ModelWeights, images: list[Image.Image]) -> torch.Tensor | None:
    how = weights.config.preprocessing
    arrays = [to_pixels(load_image(image), how) for image in images]
    return torch.from_numpy(np.stack(arrays)) if arrays else None


@torch.no_grad()
def expected_of(model: Any, ids: np.ndarray, pixels: torch.Tensor | None) -> np.ndarray:
    """As transformers' processor asks: each token sees the last image at or before it."""
    size = model.config.vision_config.image_size
    shown = torch.zeros(1, 3, size, size) if pixels is None else pixels
    seen = torch.from_numpy(np.cumsum(ids == IMAGE))
    mask = (seen[:, None] == torch.arange(1, len(shown) + 1)).long()[None]
    given = {"pixel_values": shown[None], "image_attention_mask": mask}
    return model(input_ids=torch.from_numpy(ids)[None], **given).logits[0].numpy()


def test_torch_and_onnx_equal_transformers(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "fp32", precision("fp32"), lambda bundle: [])
    bundle, ours = lite.load(tmp_path / "fp32"), VisionLanguageModel.from_weights(weights)
    assert Counts(weights.config).total == sum(p.numel() for p in ours.parameters())
    for count in (0, 1, 2):
        images, ids = pictures(count), prompt(count)
        pixels = pixels_of(weights, images)
        expected = expected_of(model, ids, pixels)
        with torch.no_grad():
            logits = ours(torch.from_numpy(ids), pixels).numpy()
        assert np.abs(logits - expected).max() <= 1e-4
        assert np.abs(bundle.score(ids, images) - expected).max() <= 1e-3
        # The text before the first image, computed without any, is right for what follows.
        seen = bundle.encode_images(images)
        bundle.decoder.logits(ids[:3])
        assert np.abs(bundle.decoder.logits(ids, seen) - expected[-1]).max() <= 1e-3
        assert bundle.decoder.computed == len(ids) - 3
        if count:
            with torch.no_grad():
                cached = ours.generate(ids, pixels, max_new_tokens=4)
                assert cached == ours.generate(ids, pixels, max_new_tokens=4, use_cache=False)


def test_int8_stays_close_and_turns_continue(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "int8", precision("int8"), lambda bundle: [])
    bundle = lite.load(tmp_path / "int8")
    images, ids = pictures(2), prompt(2)
    expected = expected_of(model, ids, pixels_of(weights, images))
    assert kl_divergence(expected, bundle.score(ids, images)).mean() <= 0.01
    chat = bundle.chat()
    list(chat.ask("compare", images, max_tokens=3))
    first = chat.prompt()[0]
    assert [i for i in first if i in (FAKE, IMAGE)] == [FAKE, IMAGE, FAKE, IMAGE, FAKE]
    list(chat.ask("and?", max_tokens=3))
    ids, seen = chat.prompt()
    cached = bundle.decoder.logits(ids, seen)
    assert bundle.decoder.computed == 1
    assert kl_divergence(bundle.decoder.score(ids, seen)[-1:], cached[None]).max() <= 1e-3


def test_what_does_not_serve_is_named(made: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = made
    config = json.loads((folder / "config.json").read_text())
    for change, named in (
        ({"use_resampler": False}, "resampler"),
        ({"num_hidden_layers": 12}, "lacks"),
        ({"vision_config": None}, "vision_config"),
        ({"additional_vocab_size": 7}, "additional_embedding"),
    ):
        broken = tmp_path / named
        shutil.copytree(folder, broken)
        (broken / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput) as error:
            read_model(broken)
        check_one_sentence(error, named)
