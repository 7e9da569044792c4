"""Llama-3.2-Vision against transformers, with random weights of two sizes and open gates."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import lite
from export.bundle import write_bundle
from export.precision import precision
from export.verify import kl_divergence
from lite.errors import BadInput
from lite.image.preprocessing import load_image, to_pixels
from lite.image.tiles import fitted, layout
from qlora.families.recognition import read_model
from qlora.model import ModelWeights, VisionLanguageModel
from qlora.plan import Counts
from tests.qlora.families.mllamas import (
    IMAGE,
    SIZES,
    expected_of,
    inputs_of,
    pictures,
    reference,
    write,
    write_tokenizer,
)
from tests.refusals import check_one_sentence


@pytest.fixture(scope="module", params=SIZES, ids=["64", "96"])
def made(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    model = reference(request.param)
    return model, write(model, tmp_path_factory.mktemp("mllama") / "hf")


def pixels_of(weights: ModelWeights, images: list) -> torch.Tensor | None:
    how = weights.config.preprocessing
    arrays = [to_pixels(load_image(image), how) for image in images]
    return torch.from_numpy(np.stack(arrays)) if arrays else None


# Images first, apart, and side by side after text.
PROMPTS = (
    (0, [300, 20, 31, 45, 50, 7, 8]),
    (1, [IMAGE, 300, 20, 31, 45, 50]),
    (2, [IMAGE, IMAGE, 300, 20, 31, 45]),
    (1, [300, 301, 20, IMAGE, 31, 45, 50]),
    (2, [300, 20, IMAGE, 31, 45, IMAGE, 50, 7]),
    (3, [300, 20, IMAGE, 31, 45, IMAGE, IMAGE, 50, 7]),
)


@pytest.mark.parametrize(("count", "tokens"), PROMPTS)
def test_torch_equals_transformers(made: tuple[Any, Path], count: int, tokens: list[int]) -> None:
    model, folder = made
    weights = read_model(folder)
    ours, ids, images = VisionLanguageModel.from_weights(weights), np.array(tokens), pictures(count)
    assert Counts(weights.config).total == sum(p.numel() for p in ours.parameters())
    pixels = pixels_of(weights, images)
    with torch.no_grad():
        logits = ours(torch.from_numpy(ids), pixels).numpy()
    assert np.abs(logits - expected_of(model, ids, images)).max() <= 1e-4
    if count and ids[0] == IMAGE:  # as it is, without what `expected_of` corrects
        with torch.no_grad():
            plain = model(**inputs_of(model, ids, images)).logits[0].numpy()
        assert np.abs(logits - plain).max() <= 1e-4
    with torch.no_grad():
        cached = ours.generate(ids, pixels, max_new_tokens=4)
        assert cached == ours.generate(ids, pixels, max_new_tokens=4, use_cache=False)


def test_onnx_equals_transformers(made: tuple[Any, Path], tmp_path: Path) -> None:
    model, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "fp32", precision("fp32"), lambda bundle: [])
    write_bundle(weights, tmp_path / "int8", precision("int8"), lambda bundle: [])
    exact, coarse = lite.load(tmp_path / "fp32"), lite.load(tmp_path / "int8")
    divergences = []
    for count, tokens in PROMPTS:
        images, ids = pictures(count), np.array(tokens)
        expected = expected_of(model, ids, images)
        assert np.abs(exact.score(ids, images) - expected).max() <= 1e-3
        divergences.append(kl_divergence(expected, coarse.score(ids, images)))
        # From the cache, one token at a time.
        seen = exact.encode_images(images)
        for end in range(3, len(ids) + 1):
            part = seen[: int((ids[:end] == IMAGE).sum())]
            last = exact.decoder.logits(ids[:end], part)
        assert exact.decoder.computed == 1
        assert np.abs(last - expected[-1]).max() <= 1e-3
    assert np.concatenate(divergences).mean() <= 0.01


def test_turns_continue_and_are_written_as_published(
    made: tuple[Any, Path], tmp_path: Path
) -> None:
    _, folder = made
    weights = read_model(folder)
    write_bundle(weights, tmp_path / "b", precision("int8"), lambda bundle: [])
    bundle, full = lite.load(tmp_path / "b"), write_tokenizer(tmp_path / "t")
    manifest = bundle.bundle.manifest
    assert (manifest.family, manifest.injection, manifest.template.name) == (
        "mllama",
        "gated",
        "llama_3",
    )
    chat = bundle.chat()
    list(chat.ask("the thing <|image|> <|eot_id|>", pictures(2), max_tokens=3))
    list(chat.ask("and näïve 狗?", pictures(3)[2:], max_tokens=3))
    ids, seen = chat.prompt()
    assert bundle.decoder.cache_dtype is np.float32
    cached = bundle.decoder.logits(ids, seen)
    assert bundle.decoder.computed == 1
    assert kl_divergence(bundle.decoder.score(ids, seen)[-1:], cached[None]).max() <= 1e-3
    answers = [e.answer_ids for e in chat.exchanges]
    user, assistant = (
        full.encode(f"<|start_header_id|>{who}<|end_header_id|>\n\n").ids
        for who in ("user", "assistant")
    )
    # What a person writes is text: the raw tokenizer knows no special tokens.
    said = weights.tokenizer.tokenizer.encode("the thing <|image|> <|eot_id|>").ids
    assert ids == [
        *full.encode("<|begin_of_text|>").ids,
        *(*user, IMAGE, IMAGE, *said, 303, *assistant, *answers[0], 303),
        *(*user, IMAGE, *full.encode("and näïve 狗?<|eot_id|>").ids, *assistant, *answers[1]),
    ]
    assert bundle.tokenizer.decode(full.encode("and näïve 狗?").ids) == "and näïve 狗?"
    system = bundle.chat("be the best")
    system.exchanges.append(chat.exchanges[0])
    opening = "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nbe the best<|eot_id|>"
    assert system.prompt()[0][: len(full.encode(opening).ids)] == full.encode(opening).ids


def test_an_image_that_comes_later_leaves_the_cache_right(
    made: tuple[Any, Path], tmp_path: Path
) -> None:
    model, folder = made
    write_bundle(read_model(folder), tmp_path / "b", precision("fp32"), lambda bundle: [])
    bundle, images = lite.load(tmp_path / "b"), pictures(2)
    ids, seen = np.array([300, 20, 31, IMAGE, IMAGE, 45, 50]), bundle.encode_images(images)
    bundle.decoder.logits(ids[:3])  # as a conversation without images
    bundle.decoder.logits(ids[:4], seen[:1])
    last = bundle.decoder.logits(ids, seen)
    assert bundle.decoder.computed == 3
    assert np.abs(last - expected_of(model, ids, images)[-1]).max() <= 1e-3
    assert bundle.decoder.logits(ids, [seen[1], seen[0]]).shape == last.shape
    assert bundle.decoder.computed == 4


@pytest.mark.parametrize("tiles", [1, 2, 4, 6])
def test_layouts_are_those_of_transformers(tiles: int) -> None:
    from transformers.models.mllama import image_processing_pil_mllama as theirs

    random = np.random.default_rng(tiles)
    for height, width in [*random.integers(1, 3000, (300, 2)).tolist(), [560, 560], [1, 2000]]:
        tall, wide = theirs.get_optimal_tiled_canvas(height, width, tiles, 560)
        rows, columns = layout(height, width, 560, tiles)
        assert (rows * 560, columns * 560) == (tall, wide)
        right = theirs.get_image_size_fit_to_canvas(height, width, tall, wide, 560)
        assert fitted(height, width, 560, rows, columns) == right


def test_what_does_not_serve_is_named(made: tuple[Any, Path], tmp_path: Path) -> None:
    _, folder = made
    config = json.loads((folder / "config.json").read_text())
    text, vision = config["text_config"], config["vision_config"]
    rope = {**text["rope_parameters"], "factor": -1}
    for change, named in (
        ({"text_config": text | {"cross_attention_layers": [1, 2]}}, "cross_attention_layers"),
        ({"text_config": text | {"num_hidden_layers": 9}}, "lacks"),
        ({"text_config": text | {"rope_parameters": rope}}, "factor"),
        ({"vision_config": None}, "vision_config"),
        ({"vision_config": vision | {"vision_output_dim": 7}}, "vision tower"),
        ({"vision_config": vision | {"num_global_layers": 7}}, "global_transformer"),
        ({"image_token_index": -5}, "image"),
    ):
        broken = tmp_path / named
        shutil.copytree(folder, broken)
        (broken / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(BadInput) as error:
            read_model(broken)
        check_one_sentence(error, named)
    for name, content, named in (
        ("tokenizer.json", {"model": {"type": "Unigram"}}, "byte-level"),
        ("preprocessor_config.json", {"resample": 3}, "resample"),
    ):
        broken = tmp_path / name
        shutil.copytree(folder, broken)
        (broken / name).write_text(json.dumps(content))
        with pytest.raises(BadInput) as error:
            read_model(broken)
        check_one_sentence(error, named)
