"""Light Markdown: colours are added, and nothing is taken away."""

from itertools import groupby, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lite.terminal.markdown import MarkdownStream
from tests.lite.terminal.terminals import plain

NAMES = {"2": "marker", "1": "bold", "3": "italic", "36": "cyan", "1;4": "heading"}


def styled(*pieces: str) -> str:
    stream = MarkdownStream()
    return "".join(map(stream.feed, pieces)) + stream.end()


def parts(*pieces: str) -> list[tuple[str, str]]:
    """(text, style) of what is styled, neighbours of one style joined."""
    runs = groupby(characters(*pieces), key=lambda each: each[1])
    texts = (("".join(character for character, _ in run), codes) for codes, run in runs)
    return [(text, NAMES.get(codes, codes)) for text, codes in texts if codes]


def characters(*pieces: str) -> list[tuple[str, str]]:
    """Each character with its style."""
    found, codes, rest = [], "", styled(*pieces)
    while rest:
        if rest.startswith("\x1b["):
            codes, _, rest = rest[2:].partition("m")
        else:
            found.append((rest[0], codes.replace("0", "")))
            rest = rest[1:]
    return found


def words(text: str, style: str) -> list[str]:
    return [word for word, name in parts(text) if name == style]


def test_plain_text_stays_as_it_is() -> None:
    for text in (
        "",
        "Two dogs.",
        "2 * 3 * 4",
        "snake_case_name",
        "a*",
        "5\n\n6.",
        "#no title",
        "_",
    ):
        assert styled(text) == text


def test_each_kind_of_markup_has_its_style() -> None:
    assert words("a **b c** d", "bold") == ["b c"]
    assert words("a *b* and _c_", "italic") == ["b", "c"]
    assert words("a ***b***", "1;3") == ["b"]
    assert words("**a *b* c**", "1;3") == ["b"]
    assert words("run `a *b*` and ``c`d``", "cyan") == ["a *b*", "c`d"]
    assert words("## Dogs\nand cats", "heading") == [" Dogs"]
    assert words("- a\n  * b\n12. c\n+ d\n", "cyan") == ["-", "  *", "12.", "+"]


def test_markers_are_dimmed_and_stay() -> None:
    assert parts("**b**") == [("**", "marker"), ("b", "bold"), ("**", "marker")]
    assert words("# T", "marker") == ["#"]


def test_a_code_block_is_one_style_until_its_fence() -> None:
    text = "```python\nx = **1\n# no title\n```\n**after**"
    assert words(text, "cyan") == ["x = **1", "# no title"]
    assert words(text, "marker") == ["```python", "```", "**", "**"]
    assert words(text, "bold") == ["after"]


def test_a_longer_fence_holds_a_shorter_one() -> None:
    assert words("````\n```\n````\nend", "cyan") == ["```"]
    assert words("~~~\n```\n~~~\nend", "cyan") == ["```"]


def test_a_longer_fence_closes_a_shorter_one() -> None:
    assert words("```\ncode\n````\n*end*", "cyan") == ["code"]
    assert words("```\ncode\n````\n*end*", "italic") == ["end"]


def test_backticks_that_are_closed_in_their_line_open_no_block() -> None:
    assert words("```a``` b\n*c*", "italic") == ["c"]


def test_what_is_not_closed_ends_with_its_line() -> None:
    for text, style in (("**a", "bold"), ("`a", "cyan"), ("*a", "italic"), ("# a", "heading")):
        assert parts(f"{text}\nplain")[-1] == (text.strip("*`#"), style)
    assert styled("```\nnever closed").endswith("never closed\x1b[0m")


def test_an_escaped_marker_is_text() -> None:
    assert styled(r"\*a\* \`b\` \_c\_") == r"\*a\* \`b\` \_c\_"
    assert styled(r"\*not\*") == r"\*not\*"
    assert words(r"\**a*", "italic") == ["a"]


def test_a_marker_that_is_cut_between_pieces_is_whole() -> None:
    assert parts("*", "*b*", "*") == parts("**b**")
    assert parts("`", "``", "\nx\n`", "``", "\n") == parts("```\nx\n```\n")
    assert parts("1", ".", " a") == parts("1. a")
    assert parts("#", "# T") == parts("## T")


def test_text_is_shown_at_once_and_only_markers_wait() -> None:
    stream = MarkdownStream()
    assert stream.feed("Two dogs") == "Two dogs"
    assert stream.feed(" and *") == " and "
    assert plain(stream.feed("one")) == "*one"
    assert stream.feed("*") == ""
    assert plain(stream.end()) == "*"


@pytest.mark.parametrize("text", ["*", "``", "```py", "12", "\\", "##", "  -", "**a**"])
def test_the_end_gives_out_what_waited(text: str) -> None:
    assert plain(styled(text)) == text


SOUP = st.text(alphabet="*_`~#-+.1a \n\\\té", max_size=60)


@settings(deadline=None)  # of a busy machine
@given(SOUP, st.lists(st.integers(0, 60), max_size=8))
def test_however_it_is_cut_nothing_is_lost_and_the_styles_are_the_same(
    text: str, cuts: list[int]
) -> None:
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(edges)]
    assert plain(styled(*pieces)) == text
    assert characters(*pieces) == characters(text)
