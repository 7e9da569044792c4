"""The table of published models: one row a model, and all that is derived from it."""

import subprocess
import sys

import pytest

from lite.text.template import TEMPLATES
from qlora.families.models import MODELS, Checkpoints, published_at
from qlora.families.recognition import readers
from qlora.recipes.reading import read_recipe, shipped


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_sizes_a_template_and_a_recipe(name: str) -> None:
    model = MODELS[name]
    assert model.name == name
    assert model.licence
    assert model.config.template in TEMPLATES
    assert name in shipped()
    assert read_recipe(name).model.name == name


def test_a_model_that_is_one_folder_has_a_reader() -> None:
    whole = {model.reader for model in MODELS.values() if model.checkpoints.model}
    assert whole == {module.__name__.rpartition(".")[2] for module in readers().values()}


def test_a_model_is_known_by_where_its_checkpoints_are() -> None:
    for model in MODELS.values():
        assert published_at(model.checkpoints) is model
        for other in model.alike:
            assert published_at(Checkpoints.whole(other)) is model
    assert published_at(Checkpoints.whole("somebody/else")) is None
    assert published_at(Checkpoints(llama="a", flamingo="b")) is None


def test_names_are_known_without_torch() -> None:
    program = "import sys, qlora.families.models; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
