"""Which image each token sees, for both rules."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lite.bundle.attend import FOLLOWING, PRECEDING, RULES, image_index
from lite.errors import BadInput

IMAGE = 7


def seen(pattern: str, rule: str) -> list[int]:
    """The image of each token of a pattern in which `i` is `<image>`."""
    return image_index([IMAGE if c == "i" else 0 for c in pattern], IMAGE, rule).tolist()


@pytest.mark.parametrize(
    ("pattern", "following", "preceding"),
    [
        ("", [], []),
        ("ttt", [0, 0, 0], [0, 0, 0]),
        ("i", [1], [1]),
        ("titt", [1, 1, 0, 0], [0, 1, 1, 1]),
        ("tititt", [1, 1, 2, 2, 0, 0], [0, 1, 1, 2, 2, 2]),
        ("iit", [1, 2, 0], [1, 2, 2]),
        ("tti", [1, 1, 1], [0, 0, 1]),
    ],
)
def test_the_rules_on_patterns_written_by_hand(
    pattern: str, following: list[int], preceding: list[int]
) -> None:
    assert seen(pattern, FOLLOWING) == following
    assert seen(pattern, PRECEDING) == preceding


PATTERNS = st.text("ti", max_size=40)


@given(PATTERNS, st.sampled_from(RULES))
def test_an_image_token_sees_its_own_image(pattern: str, rule: str) -> None:
    own = [j for c, j in zip(pattern, seen(pattern, rule), strict=True) if c == "i"]
    assert own == list(range(1, len(own) + 1))


@given(PATTERNS)
def test_text_sees_the_next_image_under_one_rule_and_the_last_under_the_other(pattern: str) -> None:
    total = pattern.count("i")
    for at, c in enumerate(pattern):
        before = pattern[:at].count("i")
        if c == "t":
            assert seen(pattern, FOLLOWING)[at] == (before + 1 if before < total else 0)
            assert seen(pattern, PRECEDING)[at] == before


@given(PATTERNS, PATTERNS)
def test_what_comes_later_changes_only_text_that_waited_for_an_image(
    pattern: str, more: str
) -> None:
    assert seen(pattern + more, PRECEDING)[: len(pattern)] == seen(pattern, PRECEDING)
    longer = seen(pattern + more, FOLLOWING)[: len(pattern)]
    number = pattern.count("i") + 1
    for old, new in zip(seen(pattern, FOLLOWING), longer, strict=True):
        assert new == old or (old == 0 and new == number)


@given(PATTERNS, st.sampled_from(RULES))
def test_lists_and_arrays_give_int32_of_their_length(pattern: str, rule: str) -> None:
    ids = np.array([IMAGE if c == "i" else 0 for c in pattern], dtype=np.int64)
    index = image_index(ids, IMAGE, rule)
    assert index.dtype == np.int32
    assert index.shape == ids.shape
    assert (index == image_index(ids.tolist(), IMAGE, rule)).all()


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(BadInput, match="'both' is unknown; choose one of following, preceding"):
        image_index([1], IMAGE, "both")
