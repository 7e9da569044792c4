"""What a step trains on follows from the recipe."""

import base64
import io
import json
from pathlib import Path

import pytest
from PIL import Image

from lite.errors import BadInput
from lite.text.template import LLAVA_V1, MMGPT
from qlora.data.opening import IMAGES, TEXT, open_data
from qlora.recipes.model import checkpoints_of
from qlora.recipes.reading import read_recipe
from qlora.tiny.data import write_data
from qlora.training.assembly import make_encoder
from qlora.training.feed import Feed


def test_a_data_set_may_have_a_template_of_its_own(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    sets = (
        "[{path: descriptions.json, images: images}, {path: instructions.json, template: llava_v1}]"
    )
    settings = ("data.name=null", f"data.root={tmp_path / 'data'}", f"data.sets={sets}")
    recipe = read_recipe("tiny", settings)
    data = open_data(recipe)
    with checkpoints_of(recipe) as checkpoints:
        encoder = make_encoder(recipe, checkpoints.read(with_lora=False))
    opening = {}
    for stream in data.streams.values():
        conversation, source = stream[0]
        ids = encoder.sample(conversation, source).ids
        opening[source] = encoder.tokenizer.decode([int(one) for one in ids]).strip()
    assert opening["descriptions"].startswith(MMGPT.system)
    assert opening["instructions"].startswith(LLAVA_V1.system)
    assert "ASSISTANT:" in opening["instructions"]


def test_fewer_samples_without_images_go_through_their_data_in_order(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    own = ("data.name=null", f"data.root={tmp_path / 'data'}", "training.text_batch=2")
    sets = "data.sets=[{path: descriptions.json, images: images}, {path: instructions.json}]"
    recipe = read_recipe("tiny", (*own, sets))
    data, settings = open_data(recipe), recipe.training
    with checkpoints_of(recipe) as checkpoints:
        encoder = make_encoder(recipe, checkpoints.read(with_lora=False))
    feed = Feed(dict(data.streams), encoder, settings)
    rows = {one.kind: one.row for one in feed[1].rows}
    for kind, batch in ((IMAGES, settings.batch), (TEXT, 2)):
        drawn = [data.streams[kind][i] for i in range(batch, 2 * batch)]
        lengths = [len(encoder.sample(*one).ids) for one in drawn]
        assert len(rows[kind].ids) == sum(lengths)


def test_more_samples_without_images_than_with_are_refused() -> None:
    with pytest.raises(BadInput, match="text_batch is at most batch"):
        read_recipe("tiny", ("training.batch=2", "training.text_batch=3"))


def test_a_broken_image_within_a_record_is_told_by_the_record(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "It."}]
    torn = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n torn").decode()
    records = [{"id": "seven", "image": torn, "conversations": turns}]
    (tmp_path / "a.json").write_text(json.dumps(records))
    own = (
        "data.name=null",
        f"data.root={tmp_path}",
        "data.holdout=0",
        "data.sets=[{path: a.json}]",
    )
    recipe = read_recipe("tiny", own)
    with checkpoints_of(recipe) as checkpoints:
        encoder = make_encoder(recipe, checkpoints.read(with_lora=False))
    micro = Feed(open_data(recipe).streams, encoder, recipe.training)[0]
    assert "(record 'seven' of a)" in micro.error


def test_a_jpeg_of_hundreds_of_scans_ends_the_run_with_its_name(tmp_path: Path) -> None:
    """A few kilobytes that would take minutes to decode."""
    folder = tmp_path / "data"
    write_data(folder)
    encoded = io.BytesIO()
    Image.effect_noise((64, 64), 80).convert("RGB").save(encoded, "JPEG", progressive=True)
    data = encoded.getvalue()
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    for path in (folder / "images").iterdir():
        path.write_bytes(data[:-2] + 400 * last_scan + data[-2:])
    own = ("data.name=null", f"data.root={folder}", "data.holdout=0")
    recipe = read_recipe("tiny", (*own, "data.sets=[{path: descriptions.json, images: images}]"))
    opened = open_data(recipe)
    with checkpoints_of(recipe) as checkpoints:
        encoder = make_encoder(recipe, checkpoints.read(with_lora=False))
    micro = Feed(opened.streams, encoder, recipe.training)[0]
    assert str(folder / "images") in micro.error
    assert "scans" in micro.error
    assert "of descriptions); data.bad_records=skip" in micro.error
