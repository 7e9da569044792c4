"""The folder of a run: its recipe, and whether it may be written to or gone on with.

Contract: a folder holds one run. What would mix two of them is refused before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lite.errors import BadInput
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import PAIRED, Recipe, differences
from qlora.training.checkpoints import write_text_atomically

RECIPE, CHECKPOINTS, ADAPTER = "recipe.yaml", "checkpoints", "adapter"
# Among the data of a checkpoint: which samples are held out.
HELD_OUT = "held-out samples"


def prepare_folder(recipe: Recipe, resume: bool) -> None:
    """Make the run's folder, or check that it holds the same run.

    Raises:
        BadInput: it holds a run that must not be mixed with this one.
    """
    folder = Path(recipe.output)
    written = folder / RECIPE
    started = (folder / CHECKPOINTS).is_dir() or (folder / ADAPTER).is_dir()
    if started and not resume:
        raise BadInput(
            f"{folder} holds a run already; go on with it by --resume, or give another output."
        )
    if started and written.exists():
        changed = differences(_started_with(written), recipe)
        if changed:
            raise BadInput(
                f"The run in {folder} was started with another {', '.join(changed[:3])}; resume it "
                f"with the settings in {written}, or give another output."
            )
    text = yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text_atomically(written, text)
    except OSError as error:
        raise BadInput(
            f"{folder} cannot be written to ({error.strerror}); give another output."
        ) from None


def _started_with(written: Path) -> Recipe:
    """The recipe of a run; one that says nothing of its mix is of version 0.1, which paired."""
    recipe = read_recipe(str(written))
    if "mix" in recipe.data.model_fields_set:
        return recipe
    return read_recipe(str(written), [f"data.mix={PAIRED}"])


def check_data(
    data: list[list[str]], started_with: list[list[str]], by_image: bool, folder: Path
) -> None:
    """Refuse to go on with data that are not those of a checkpoint.

    Args:
        data, started_with: name and fingerprint of each data set and of the choice of held-out
            samples, now and of the checkpoint.
        by_image: whether records that share an image made a difference to what is held out.
        folder: of the run.

    Raises:
        BadInput: they differ.
    """
    changed = [one[0] for one in data if one not in started_with]
    # Checkpoints of version 0.1 do not say what is held out. It was drawn by record.
    if HELD_OUT not in (one[0] for one in started_with) and not by_image:
        changed = [name for name in changed if name != HELD_OUT]
    if changed == [HELD_OUT]:
        raise BadInput(
            f"The run in {folder} holds out other samples than this version would, which keeps "
            f"those of one image together; start it again with another output."
        )
    if changed:
        raise BadInput(
            f"The data set {changed[0]} is not what the run in {folder} was started with; put its "
            f"file and images back, or give another output."
        )
