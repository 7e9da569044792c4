"""The folder of a run: its recipe, and whether it may be written to or gone on with.

Contract: a folder holds one run. What would mix two of them is refused before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from lite.errors import BadInput
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import Recipe, differences
from qlora.training.checkpoints import write_text_atomically

RECIPE, CHECKPOINTS, ADAPTER = "recipe.yaml", "checkpoints", "adapter"


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
        changed = differences(read_recipe(str(written)), recipe)
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
