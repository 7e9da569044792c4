"""The model of a recipe before it is loaded: its checkpoints, its tokenizer and its templates.

Contract: no weights are read, except of a model in one folder: how many tokens an image takes is
written nowhere else.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lite.errors import BadInput
from lite.text.template import MMGPT, Template, template
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.hub import SMALL_FILES, resolve
from qlora.checkpoints.tokenizer_files import read_tokenizer
from qlora.families.flamingo import model_tokenizer
from qlora.families.models import MODELS, TINY, Checkpoints
from qlora.recipes.schema import Recipe
from qlora.tiny.model import write_checkpoints


@contextlib.contextmanager
def checkpoints_of(recipe: Recipe) -> Iterator[Checkpoints]:
    """Where the recipe's checkpoints are; a tiny model is made on the spot."""
    given = recipe.model
    parts = given.model_dump(
        include={"model", "llama", "clip", "clip_weights", "flamingo", "attend"}
    )
    with tempfile.TemporaryDirectory() as folder:
        if given.name == TINY:
            named: Checkpoints | None = write_checkpoints(Path(folder))
        else:
            published = MODELS.get(given.name or "")
            named = published.checkpoints if published else None
        yield Checkpoints.with_parts(named, parts)


def open_tokenizer(recipe: Recipe) -> tuple[Tokenizer, Template]:
    """Tokenizer and prompt template alone: of a LLaMA on the hub, only small files are fetched.

    How many tokens an image takes is written in no small file: a whole model is opened.

    Raises:
        BadInput: they cannot be had.
    """
    with checkpoints_of(recipe) as checkpoints:
        if checkpoints.model:
            weights = checkpoints.read(with_lora=False)
            return weights.chat_tokenizer(), template_of(recipe, weights.config.template)
        folder = resolve(checkpoints.llama, "llama", patterns=SMALL_FILES)
        base = read_tokenizer(folder)
    return model_tokenizer(base), template_of(recipe, MMGPT.name)


def template_of(recipe: Recipe, family: str) -> Template:
    """The prompt template of a run on a model whose family has the template of that name.

    Raises:
        BadInput: the recipe asks for another one, which no export of the model would use.
    """
    asked = recipe.data.template
    if asked not in (None, family):
        raise BadInput(
            f"data.template is {asked} but the model's own is {family}, in which it is asked after "
            f"its export; leave data.template out."
        )
    return template(family)


def own_templates(recipe: Recipe) -> dict[str, Template]:
    """By its name, the prompt template of each data set that has one of its own."""
    return {one.called: template(one.template) for one in recipe.data.sets if one.template}
