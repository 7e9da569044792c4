"""What every refusal must be: `BadInput` with one sentence that names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lite.errors import BadInput


def check_one_sentence(error: pytest.ExceptionInfo[BadInput], *parts: object) -> None:
    """The message is one line, ends as a sentence, and contains `parts`."""
    text = str(error.value)
    assert text.endswith(".")
    assert "\n" not in text
    for part in parts:
        assert str(part) in text


def refused(read: Callable[[Path], Any], path: Path, *parts: object) -> None:
    """`read(path)` refuses in one sentence that names the path and contains `parts`."""
    with pytest.raises(BadInput) as error:
        read(path)
    check_one_sentence(error, path, *parts)
