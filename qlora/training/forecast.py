"""The plan of a recipe: `--dry-run`.

Contract: nothing is downloaded. What is not on this machine is taken from what is known of it: the
published model's sizes, and an example instead of missing data.
"""

from __future__ import annotations

from pathlib import Path

from lite.errors import BadInput
from lite.text.template import MMGPT, Template
from qlora.data.conversation import Conversation
from qlora.data.opening import IMAGES, TEXT, Data, Progress, open_data
from qlora.families.models import NAMES, TINY, published_at
from qlora.plan import Counts, Device, Plan, Settings, Workload, make_plan
from qlora.recipes.model import checkpoints_of, open_tokenizer
from qlora.recipes.schema import Recipe

# LLaMA's tokenizer makes one token of about four characters of English.
_CHARACTERS = 4.0
# Samples of each kind whose length is looked at.
_LOOKED_AT = 200


def plan_recipe(recipe: Recipe, device: Device, progress: Progress) -> Plan:
    """What a run of the recipe takes on a device.

    Raises:
        BadInput: the sizes of the model cannot be known without a download, or the data that are
            here cannot be used.
    """
    settings = Settings.from_recipe(recipe)
    return make_plan(counts_of(recipe), settings, device, _work(recipe, progress))


def counts_of(recipe: Recipe) -> Counts:
    """The counts of the recipe's model.

    Raises:
        BadInput: its sizes cannot be known without a download.
    """
    with checkpoints_of(recipe) as checkpoints:
        missing = [source for source in checkpoints.sources if not Path(source).exists()]
        if not missing:
            return Counts(checkpoints.read(with_lora=False).config)
        if published := published_at(checkpoints):
            return Counts(published.config)
    raise BadInput(
        f"The sizes of {missing[0]} are not known before it is downloaded; give paths on this "
        f"machine, or a published model as model.name: {', '.join(NAMES)}."
    )


def _work(recipe: Recipe, progress: Progress) -> Workload | None:
    """How much there is to train on; None where the data are not here."""
    root = Path(recipe.data.root)
    needed = [root / path for one in recipe.data.sets for path in (one.path, one.images or "")]
    if recipe.data.name != TINY and not all(path.exists() for path in needed):
        return None
    data = open_data(recipe.lenient(), progress)
    rows = data.steps(recipe.training) * recipe.training.accumulate
    samples = {kind: round(rows * n) for kind, n in data.drawn(recipe.training).items()}
    with_images = data.kinds.get(IMAGES)
    return Workload(
        image_samples=samples.get(IMAGES, 0),
        text_samples=samples.get(TEXT, 0),
        image_tokens=_mean_tokens(recipe, data, IMAGES),
        text_tokens=_mean_tokens(recipe, data, TEXT),
        images=min(samples[IMAGES], with_images.epoch_length) if with_images else 0,
    )


def _mean_tokens(recipe: Recipe, data: Data, kind: str) -> float:
    """Mean length of a kind's samples, by their characters: no tokenizer is needed."""
    stream = data.kinds.get(kind)
    if stream is None:
        return 0.0
    count = min(_LOOKED_AT, stream.epoch_length)
    _, text = open_tokenizer(recipe) if recipe.model.model else (None, MMGPT)
    lengths = [_characters(stream[i][0], text) / _CHARACTERS for i in range(count)]
    return sum(min(length, recipe.data.max_tokens) for length in lengths) / count


def _characters(conversation: Conversation, text: Template) -> int:
    count = len(text.system if conversation.system is None else conversation.system)
    for exchange in conversation.exchanges:
        turn = text.turn(exchange.question, len(exchange.images), exchange.context)
        count += sum(len(part) for part in turn) + len(exchange.answer)
    return count
