"""Notices are broken between words, where they are broken at all."""

import io
import sys

import pytest

from lite.demo import NOTICE
from lite.terminal.notices import wrapped


class Screen(io.StringIO):
    """A terminal, as far as `wrapped` asks."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("columns", [20, 40, 79, 200])
def test_no_word_is_broken_at_the_end_of_a_line(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys, "stderr", Screen())
    lines = wrapped(NOTICE).splitlines()
    assert max(map(len, lines)) <= columns
    assert " ".join(lines) == NOTICE


def test_what_is_no_terminal_gets_one_line() -> None:
    assert wrapped(NOTICE) == NOTICE
