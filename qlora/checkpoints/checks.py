"""Checks that every checkpoint reader shares.

Contract: each helper either returns something that was looked at, or raises `BadInput` with one
sentence naming the file. None of them reads tensor data except `same_content`.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lite.errors import BadInput

if TYPE_CHECKING:
    from qlora.checkpoints.views import TensorSource

WEIGHT_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

# Above this many elements two tensors are compared at evenly spaced positions only: a full
# comparison of OpenFlamingo-9B's aliases would read 8 GB to confirm what the format promises.
_FULL_COMPARISON = 2**20
_SAMPLES = 2**14


def one_line(error: BaseException) -> str:
    """The first line of a library's message, short enough to stand inside one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[0] if lines else type(error).__name__).rstrip(".;:")
    return text if len(text) <= 200 else text[:197] + "..."


def some(names: Iterable[str], limit: int = 3) -> str:
    """`a, b, c and 5 more`: as many names as a sentence can carry, on one line."""
    listed = [name if name.isprintable() else ascii(name) for name in names]
    rest = len(listed) - limit
    return ", ".join(listed[:limit]) + (f" and {rest} more" if rest > 0 else "")


def read_json(path: Path, what: str) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        BadInput: the file is missing, unreadable, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))  # Windows' editors put a BOM
    except FileNotFoundError:
        raise BadInput(
            f"{path} does not exist, so there is no {what} to read; check the path or download "
            f"the missing file."
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} cannot be read as JSON ({one_line(error)}); download the {what} again."
        ) from error
    if not isinstance(value, dict):
        raise BadInput(
            f"{path} holds a JSON {type(value).__name__} where the {what} should be an object; "
            f"download it again."
        )
    return value


def check_tensors(
    source: "TensorSource", expected: Mapping[str, tuple[int, ...]], path: Path, what: str
) -> None:
    """Compare names, shapes and dtypes with what the configuration asks for.

    Raises:
        BadInput: a tensor is missing, unexpected, of another shape, or not a plain float tensor.
    """
    missing = [name for name in expected if name not in source]
    if missing:
        raise BadInput(
            f"The {what} {path} lacks {some(missing)}; check that it is complete and belongs to "
            f"this configuration."
        )
    unexpected = [name for name in source if name not in expected]
    if unexpected:
        raise BadInput(
            f"The {what} {path} holds {some(unexpected)}, which this configuration has no place "
            f"for; check that weights and configuration belong together."
        )
    for name, shape in expected.items():
        check_shape(source, name, shape)


def check_shape(source: "TensorSource", name: str, shape: tuple[int, ...]) -> None:
    """One tensor's shape and dtype, from the file's header.

    Raises:
        BadInput: the shape differs, or the values are not fp64, fp32, fp16 or bf16.
    """
    found = source.shape(name)
    if found != shape:
        raise BadInput(
            f"{name} in {source.where(name)} has shape {list(found)} instead of {list(shape)}; "
            f"check that weights and configuration belong together."
        )
    if source.dtype(name) not in WEIGHT_DTYPES:
        raise BadInput(
            f"{name} in {source.where(name)} is stored as {source.dtype(name)}; give the "
            f"unquantized checkpoint (float32, float16 or bfloat16)."
        )


def same_content(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether two tensors of any shape are copies of each other.

    Tensors on the same storage are equal without a look; large ones are compared at 16384 evenly
    spaced elements (see `_FULL_COMPARISON`).
    """
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    if first.data_ptr() == second.data_ptr() and first.stride() == second.stride():
        return True
    left, right = first.reshape(-1), second.reshape(-1)
    if left.numel() > _FULL_COMPARISON:
        step = left.numel() // _SAMPLES
        left, right = left[::step], right[::step]
    return torch.equal(left, right)
