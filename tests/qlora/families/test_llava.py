"""LLaVA of every layout against transformers, with random weights of two sizes."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, LlavaConfig, LlavaForConditionalGeneration, MistralConfig

import lite
from export.bundle import write_bundle
from export.precision import precision
from export.verify import kl_divergence
from lite.errors import BadInput
from lite.image.preprocessing import load_image, to_pixels
from qlora.families.recognition import read_model
from qlora.model import ModelWeights, VisionLanguageModel
from tests.qlora.families.llavas import (
    IMAGE,
    SIZES,
    original_config,
    projector_tensors,
    reference,
    write_base,
    write_hugging_face,
    write_lora,
    write_original,
    write_tower,
)
from tests.refusals import check_one_sentence


def pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(count)
    shapes = ((40, 70, 3), (90, 30, 3))
    return [Image.fromarray(random.integers(0, 256, s, dtype=np.uint8)) for s in shapes[:count]]


def prompt(places: int, images: int) -> np.ndarray:
    """Images that are neighbours, with text on both sides."""
    return np.array([1, 20, 31, *[IMAGE] * (places * images), 45, 50, 7, 8])


def pixels_of(weights: ModelWeights, images: list[Image.Image]) -> torch.Tensor | None:
    how = weights.config.preprocessing
    return (
        torch.from_numpy(np.stack([to_pixels(load_image(i), how) for i in images]))
        if images
        else None
    )


@torch.no_grad()
def expected_of(model: Any, ids: np.ndarray, pixels: torch.Tensor | None) -> np.ndarray:
    return model(input_ids=torch.from_numpy(ids)[None], pixel_values=pixels).logits[0].numpy()


@torch.no_grad()
def logits_of(weights: ModelWeights, ids: np.ndarray, pixels: torch.Tensor | None) -> np.ndarray:
    # The original layout gives `<image>` no id of the vocabulary.
    ids = np.where(ids == IMAGE, weights.special_ids["<image>"], ids)
    return VisionLanguageModel.from_weights(weights)(torch.from_numpy(ids), pixels).numpy()


@pytest.fixture(scope="module", params=SIZES, ids=["64", "96"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """transformers' model, and its folder."""
    model = reference(request.param)
    return model, write_hugging_face(model, tmp_path_factory.mktemp("llava") / "hf")


def test_torch_and_onnx_equal_transformers(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    places = weights.config.latents
    write_bundle(weights, tmp_path / "fp32", precision("fp32"), lambda bundle: [])
    bundle = lite.load(tmp_path / "fp32")
    for count in (0, 1, 2):
        images, ids = pictures(count), prompt(places, count)
        pixels = pixels_of(weights, images)
        expected = expected_of(model, ids, pixels)
        assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4
        assert np.abs(bundle.score(ids, images) - expected).max() <= 1e-3
        # From a cache that holds the beginning, whatever part of the images it ends in.
        seen = bundle.encode_images(images)
        if count:
            bundle.decoder.logits(ids[: 3 + places], seen[:1])
        assert np.abs(bundle.decoder.logits(ids, seen) - expected[-1]).max() <= 1e-3
        assert bundle.decoder.computed == (len(ids) - 3 - places if count else 1)


def test_int8_stays_close(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "int8", precision("int8"), lambda bundle: [])
    images, ids = pictures(2), prompt(weights.config.latents, 2)
    expected = expected_of(model, ids, pixels_of(weights, images))
    assert kl_divergence(expected, lite.load(tmp_path / "int8").score(ids, images)).mean() <= 0.01


@pytest.mark.parametrize("separate", [False, True], ids=["one file", "mm_projector.bin"])
def test_the_original_layout_is_the_same_model(separate: bool, tmp_path: Path) -> None:
    model = reference(SIZES[0])
    weights = read_model(write_original(model, tmp_path / "original", separate))
    ids = prompt(weights.config.latents, 2)
    pixels = pixels_of(weights, pictures(2))
    assert weights.config.preprocessing.fit == "pad"
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4


def test_a_lora_run_is_merged_into_its_base(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    base = write_base(model, tmp_path / "vicuna")
    folder = write_lora(model, tmp_path / "run")
    weights = read_model(folder, base=base)
    ids, pixels = prompt(weights.config.latents, 1), pixels_of(weights, pictures(1))
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "--llama")
    other = write_base(reference(SIZES[1]), tmp_path / "other")
    with pytest.raises(BadInput) as error:
        read_model(folder, base=other)
    check_one_sentence(error, "96")


def test_a_linear_projector_is_one_layer(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    folder = write_original(model, tmp_path / "v1", True)
    config = original_config(model, mm_projector_type="linear")
    (folder / "config.json").write_text(json.dumps(config))
    first = model.model.multi_modal_projector.linear_1
    linear = {f"model.mm_projector.{n}": t for n, t in first.state_dict().items()}
    torch.save(linear, folder / "mm_projector.bin")
    weights = read_model(folder)
    model.model.multi_modal_projector = torch.nn.Sequential(copy.deepcopy(first))
    ids, pixels = prompt(weights.config.latents, 1), pixels_of(weights, pictures(1))
    expected = expected_of(model, ids, pixels)
    assert np.abs(logits_of(weights, ids, pixels) - expected).max() <= 1e-4


def test_what_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    model = reference(SIZES[0])
    folder = write_original(model, tmp_path / "broken", True)
    (folder / "mm_projector.bin").unlink()
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "no projector")
    torch.save(projector_tensors(reference(SIZES[1]), "model."), folder / "mm_projector.bin")
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "mm_projector.bin", 64, 48)
    torch.save(projector_tensors(model, "model."), folder / "mm_projector.bin")
    other = write_tower(reference(SIZES[1]), tmp_path / "tower")
    with pytest.raises(BadInput) as error:
        read_model(folder, tower=str(other))
    check_one_sentence(error, "vision tower")
    for change, named in (
        ({"mm_projector_type": "resampler"}, "resampler"),
        ({"mm_use_im_start_end": True}, "mm_use_im_start_end"),
        ({"image_aspect_ratio": "anyres"}, "anyres"),
        ({"mm_vision_select_layer": -9}, "-9"),
        ({"mm_vision_tower": "no/where/at/all"}, "no/where/at/all"),
    ):
        (folder / "config.json").write_text(json.dumps(original_config(model, **change)))
        with pytest.raises(BadInput) as error:
            read_model(folder)
        check_one_sentence(error, named)


def with_text(folder: Path, text: dict[str, Any]) -> Path:
    """The same folder with other settings of the language model."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"text_config": config["text_config"] | text}))
    return folder


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        *((kind, kind) for kind in ("granite", "helium", "smollm3", "gemma", "gemma2", "qwen2")),
        *((kind, kind) for kind in ("qwen3", "olmo2", "cohere", "phi3", "mixtral", "starcoder2")),
    ],
)
def test_language_models_that_are_not_computed_are_refused(
    tmp_path: Path, kind: str, named: str
) -> None:
    """With the defaults that transformers itself writes for the type."""
    folder = write_hugging_face(reference(SIZES[0]), tmp_path / "hf")
    with pytest.raises(BadInput) as error:
        read_model(with_text(folder, AutoConfig.for_model(kind).to_dict()))
    check_one_sentence(error, named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ({"model_type": "mistral", "sliding_window": 8}, "sliding_window 8"),
        ({"embedding_multiplier": 12.0}, "embedding_multiplier"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping"),
        ({"no_rope_layers": [1, 1, 0]}, "no_rope_layers"),
        ({"use_qk_norm": True}, "use_qk_norm"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ({"num_local_experts": 8}, "num_local_experts"),
    ],
)
def test_settings_that_change_the_language_model_are_refused(
    tmp_path: Path, text: dict[str, Any], named: str
) -> None:
    folder = write_hugging_face(reference(SIZES[0]), tmp_path / "hf")
    with pytest.raises(BadInput) as error:
        read_model(with_text(folder, text))
    check_one_sentence(error, named)


def test_mistral_without_a_window_equals_transformers(tmp_path: Path) -> None:
    model = reference(SIZES[1])
    text = model.config.text_config
    mistral = MistralConfig(
        hidden_size=text.hidden_size,
        intermediate_size=text.intermediate_size,
        num_hidden_layers=text.num_hidden_layers,
        num_attention_heads=text.num_attention_heads,
        num_key_value_heads=text.num_key_value_heads,
        vocab_size=text.vocab_size,
        sliding_window=None,
    )
    config = LlavaConfig(
        vision_config=model.config.vision_config,
        text_config=mistral,
        image_token_index=IMAGE,
        image_seq_length=model.config.image_seq_length,
    )
    other = LlavaForConditionalGeneration(config).eval()
    other.load_state_dict(model.state_dict())
    weights = read_model(write_hugging_face(other, tmp_path / "hf"))
    ids = prompt(weights.config.latents, 1)
    pixels = pixels_of(weights, pictures(1))
    assert np.abs(logits_of(weights, ids, pixels) - expected_of(other, ids, pixels)).max() <= 1e-4


@pytest.mark.parametrize("where", ["text", "top"])
def test_a_tied_head_is_tied_where_transformers_ties_it(tmp_path: Path, where: str) -> None:
    model = reference(SIZES[0])
    model.config.tie_word_embeddings = where == "top"
    model.config.text_config.tie_word_embeddings = where == "text"
    folder = write_hugging_face(model, tmp_path / "hf")
    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: t for name, t in tensors.items() if "lm_head" not in name},
        folder / "model.safetensors",
        {"format": "pt"},
    )
    again = LlavaForConditionalGeneration.from_pretrained(folder).eval()
    weights = read_model(folder)
    ids = np.array([1, 20, 31])
    assert np.abs(logits_of(weights, ids, None) - expected_of(again, ids, None)).max() <= 1e-4


def test_a_full_fine_tune_is_read_with_the_tower_inside(tmp_path: Path) -> None:
    """As the original repository's train.py saves it; the named tower gives sizes alone."""
    model = reference(SIZES[0])
    folder = write_original(model, tmp_path / "full", False)
    write_tower(reference(SIZES[0], seed=1), folder / "clip")  # another's weights
    tensors = torch.load(folder / "pytorch_model.bin")
    tower = model.model.vision_tower.state_dict()
    prefix = "model.vision_tower.vision_tower.vision_model."
    inside = {prefix + name.removeprefix("vision_model."): t for name, t in tower.items()}
    torch.save(tensors | inside, folder / "pytorch_model.bin")
    weights = read_model(folder)
    ids, pixels = prompt(weights.config.latents, 1), pixels_of(weights, pictures(1))
    assert np.abs(logits_of(weights, ids, pixels) - expected_of(model, ids, pixels)).max() <= 1e-4


def test_a_projector_alone_asks_for_its_language_model(tmp_path: Path) -> None:
    folder = write_original(reference(SIZES[0]), tmp_path / "projector", True)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "--llama")


def test_an_adapter_beside_the_weights_is_not_passed_over(tmp_path: Path) -> None:
    folder = write_hugging_face(reference(SIZES[0]), tmp_path / "hf")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput) as error:
        read_model(folder)
    check_one_sentence(error, "adapter_config.json", "--lora")
