"""Reading a recipe: YAML, and `section.key=value` from the command line.

Contract: what is unknown, missing or out of range is one sentence before anything is opened or
downloaded, and an unknown key comes with the one that was probably meant.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Hashable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from lite.errors import BadInput
from qlora.recipes.schema import Recipe

# What other trainers call a key.
_ELSEWHERE = {
    "lr": "training.learning_rate",
    "r": "adapter.rank",
    "lora_r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "target_modules": "adapter.targets",
    "num_train_epochs": "training.epochs",
    "max_steps": "training.steps",
    "gradient_accumulation_steps": "training.accumulate",
    "per_device_train_batch_size": "training.batch",
    "warmup_steps": "training.warmup",
    "max_grad_norm": "training.clip",
    "max_seq_length": "data.max_tokens",
    "cutoff_len": "data.max_tokens",
    "output_dir": "output",
}


def shipped() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(resources.files("qlora"))) / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_recipe(reference: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        reference: a YAML file, or the name of a shipped recipe.
        overrides: `section.key=value`, the value in YAML; list items by number
            (`data.sets.0.weight=2`).

    Raises:
        BadInput: no such file, not YAML, an unknown key, or an unusable value.
    """
    path = Path(reference)
    # A folder may well have the name of a shipped recipe, such as that of its runs.
    if not path.is_file() and reference in shipped():
        path = shipped()[reference]
    values = _load(path, reference)
    for override in overrides:
        _apply(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise BadInput(_explain(error, reference)) from None


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Safe YAML in which a key that is given twice is an error and not the last one's."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key that is no plain word", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _load(path: Path, reference: str) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        raise BadInput(f"There is no recipe {reference}; {_choices()}.") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror}); {_choices()}.") from None
    except RecursionError:
        raise BadInput(f"{path} is not a YAML recipe: nested too deeply; correct it.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "not UTF-8 text"
        raise BadInput(f"{path} is not a YAML recipe: {problem}{where}; correct it.") from None
    if not isinstance(values, dict):
        raise BadInput(f"{path} holds no sections; a recipe has {', '.join(Recipe.model_fields)}.")
    return values


def _choices() -> str:
    return f"give a YAML file, or one of {', '.join(shipped())}"


def _apply(values: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the raw values."""
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise BadInput(f"{override!r} is no setting; write section.key=value.")
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError:
        raise BadInput(f"The value of {key} is not YAML: {text!r}; put quotes around it.") from None
    *parents, last = key.split(".")
    place: Any = values
    for parent in parents:
        place = _child(place, parent, key)
    if isinstance(place, list):
        _child(place, last, key)
        place[int(last)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise BadInput(f"{key} is inside a value that has no parts; see the recipe's sections.")


def _child(place: Any, name: str, key: str) -> Any:
    if isinstance(place, dict):
        if place.get(name) is None:
            place[name] = {}
        return place[name]
    if isinstance(place, list) and name.isdecimal() and int(name) < len(place):
        return place[int(name)]
    raise BadInput(f"{key} names no part of the recipe: there is no {name}.")


def _explain(error: ValidationError, reference: str) -> str:
    """The first problem as one sentence; a misspelt key explains the one that is missing."""
    problem = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in problem["loc"] if not str(part).startswith("list["))
    if problem["type"] == "extra_forbidden":
        guess = _nearest(key)
        advice = f"did you mean {guess}?" if guess else f"see one of {', '.join(shipped())}."
        return f"{reference} sets {key}, which no recipe has; {advice}"
    if problem["type"] == "missing":
        return f"{reference} lacks {key}; give it a value."
    message = str(problem["msg"]).removeprefix("Value error, ")
    given = "" if isinstance(problem["input"], dict) else f", not {problem['input']!r}"
    return f"{reference}: {key or 'the recipe'} is unusable: {message}{given}."


def _nearest(key: str) -> str | None:
    """The known key that was probably meant: in the same section, or of the same name elsewhere."""
    keys = known_keys()
    name = key.rpartition(".")[2]
    if name in _ELSEWHERE:
        return _ELSEWHERE[name]
    by_name = {known.rpartition(".")[2]: known for known in keys}
    close = difflib.get_close_matches(key, keys, 1, 0.8)
    close = close or difflib.get_close_matches(name, by_name, 1, 0.6)
    return by_name.get(close[0], close[0]) if close else None


def known_keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every key that a recipe may have, as `section.key`."""
    keys = []
    for name, field in model.model_fields.items():
        section = _section(field.annotation)
        if section is not None:
            keys += [f"{prefix}{name}", *known_keys(section, f"{prefix}{name}.")]
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _section(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or a list of which it holds."""
    if get_origin(annotation) in (list, Union, types.UnionType):
        return next((s for part in get_args(annotation) if (s := _section(part))), None)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation if is_model else None
