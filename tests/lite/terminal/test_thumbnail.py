"""The small picture: right cells, and none where the terminal cannot show it."""

import io
import sys
from collections.abc import Callable

import numpy as np
import pytest
from rich.console import Console

from lite.terminal import thumbnail
from lite.terminal.thumbnail import cells, drawing

RED, BLUE = (255, 0, 0), (0, 0, 255)


class Screen(io.StringIO):
    """A terminal that only remembers."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def flag(height: int, width: int) -> np.ndarray:
    """Red above blue."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    picture[: height // 2], picture[height // 2 :] = RED, BLUE
    return picture


SQUARE = flag(4, 4)


@pytest.mark.parametrize(
    ("height", "width", "lines", "columns"),
    [(480, 640, 18, 24), (640, 480, 24, 18), (100, 100, 24, 24), (1, 5000, 2, 24),
     (5000, 1, 24, 1), (1, 1, 24, 24), (3, 24, 4, 24)],
)  # fmt: skip
def test_a_picture_keeps_its_shape_and_fits(
    height: int, width: int, lines: int, columns: int
) -> None:
    assert cells(flag(height, width), 24, 12).shape == (lines, columns, 3)


def test_cells_have_the_colours_of_the_picture() -> None:
    small = cells(flag(400, 400), 24, 12)
    assert (small[:12] == RED).all()
    assert (small[12:] == BLUE).all()


def test_a_cell_shows_the_upper_pixel_over_the_lower_one() -> None:
    screen = Screen()
    console = Console(file=screen, force_terminal=True, color_system="truecolor")
    console.print(drawing(flag(2, 3)))
    assert screen.getvalue() == "\x1b[38;2;255;0;0;48;2;0;0;255m▀\x1b[0m" * 3 + "\n"


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`shown(NAME=value)`: what a terminal gets, of 256 colours unless variables say otherwise."""

    def show(
        stdout: io.StringIO | None = None, rgb: np.ndarray = SQUARE, **environment: str
    ) -> str:
        usual = {"TERM": "xterm-256color", "COLUMNS": "80", "NO_COLOR": "", "COLORTERM": ""}
        for name, value in (usual | environment).items():
            monkeypatch.setenv(name, value)
        stdout = stdout or Screen()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", stdout)
            thumbnail.show(rgb)
        return stdout.getvalue()

    return show


needs_term = pytest.mark.skipif(sys.platform == "win32", reason="its console tells its colours")


@needs_term
def test_a_terminal_with_colours_shows_it(shown: Callable[..., str]) -> None:
    assert shown().count("▀") == 24 * 12
    assert "\x1b[38;5;196;48;5;196m" in shown()
    # Another picture: rich remembers how it wrote a colour.
    green = np.full((4, 4, 3), (1, 200, 3), dtype=np.uint8)
    assert "\x1b[38;2;1;200;3;48;2;1;200;3m" in shown(rgb=green, COLORTERM="truecolor")


@needs_term
def test_a_narrow_terminal_gets_a_narrow_picture(shown: Callable[..., str]) -> None:
    assert [line.count("▀") for line in shown(COLUMNS="10").splitlines()] == [10] * 5


@pytest.mark.parametrize(
    ("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "vt100"), ("TERM", "xterm")]
)
def test_a_terminal_without_them_shows_nothing(
    name: str, value: str, shown: Callable[..., str]
) -> None:
    assert shown(**{name: value}) == ""


def test_nothing_is_drawn_where_the_character_is_missing(shown: Callable[..., str]) -> None:
    class Old(Screen):
        encoding = "ascii"

    assert shown(Old()) == ""


def test_nothing_is_drawn_into_a_pipe(shown: Callable[..., str]) -> None:
    assert shown(io.StringIO(), FORCE_COLOR="1") == ""
