"""What a step trains on follows from the recipe."""

from pathlib import Path

from lite.template import LLAVA_V1, MMGPT
from qlora.recipe_file import read_recipe
from qlora.tiny_data import write_data
from qlora.training.run import checkpoints_of, make_encoder, open_data


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
