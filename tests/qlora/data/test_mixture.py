"""A stream of several sets: exact shares, all records, any position."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlora.data.mixture import Mixture
from tests.qlora.data.small import SmallSet, numbered


def stream(mixture: Mixture, start: int, stop: int) -> list[tuple[str, str]]:
    """(set, record) at each position."""
    shown = []
    for position in range(start, stop):
        conversation, name = mixture[position]
        shown.append((name, conversation.id))
    return shown


def mixed(*sets: SmallSet, seed: int = 0, label: str = "text") -> Mixture:
    return Mixture([one.all for one in sets], seed, label)


SETS = st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 3)), min_size=1, max_size=4)


@given(sizes=SETS, epoch=st.integers(0, 5))
def test_every_epoch_has_the_exact_shares(sizes: list[tuple[int, float]], epoch: int) -> None:
    sets = [numbered(f"set{i}", n, w) for i, (n, w) in enumerate(sizes)]
    mixture = mixed(*sets)
    length = mixture.epoch_length
    shown = Counter(name for name, _ in stream(mixture, epoch * length, (epoch + 1) * length))
    expected = {f"set{i}": max(1, round(w * n)) for i, (n, w) in enumerate(sizes)}
    assert shown == expected
    assert mixture.shares == [places / length for places in expected.values()]


@given(sizes=SETS, position=st.integers(0, 10**9))
def test_a_position_alone_decides(sizes: list[tuple[int, float]], position: int) -> None:
    def fresh() -> Mixture:
        return mixed(*(numbered(f"set{i}", n, w) for i, (n, w) in enumerate(sizes)))

    used = fresh()
    stream(used, 0, 5)
    assert stream(used, position, position + 3) == [
        stream(fresh(), p, p + 1)[0] for p in range(position, position + 3)
    ]


def test_one_epoch_at_weight_one_shows_every_record_once() -> None:
    mixture = mixed(numbered("a", 7), numbered("b", 13))
    for epoch in range(3):
        shown = stream(mixture, 20 * epoch, 20 * (epoch + 1))
        expected = [("a", str(i)) for i in range(7)] + [("b", str(i)) for i in range(13)]
        assert sorted(shown) == sorted(expected)
    assert stream(mixture, 0, 20) != stream(mixture, 20, 40)


def test_a_small_weight_goes_through_all_records_over_the_epochs() -> None:
    mixture = mixed(numbered("rare", 10, 0.3), numbered("other", 10))
    shown = [r for name, r in stream(mixture, 0, 10 * mixture.epoch_length) if name == "rare"]
    assert len(shown) == 30
    assert Counter(shown) == {str(i): 3 for i in range(10)}
    # Three epochs and a place of the fourth are a pass: by then none can be missing.
    assert set(shown[:12]) == {str(i) for i in range(10)}


def test_a_large_weight_repeats_records_evenly_and_says_so() -> None:
    often = numbered("often", 4, 2.5)
    stream(mixed(often), 0, 20)
    assert Counter(index for index, _ in often.asked) == dict.fromkeys(range(4), 5)
    # Every showing of a record has a number of its own, for its random choices.
    assert len(set(often.asked)) == 20


def test_streams_of_two_labels_are_independent() -> None:
    one, two = mixed(numbered("a", 200), label="images"), mixed(numbered("a", 200), label="text")
    pairs = list(zip(stream(one, 0, 200), stream(two, 0, 200), strict=True))
    assert sum(first == second for first, second in pairs) < 10
    assert stream(mixed(numbered("a", 200), seed=1), 0, 200) != stream(two, 0, 200)


def test_two_sets_of_one_name_have_orders_of_their_own() -> None:
    one, two = numbered("a", 50, 0.2), numbered("a", 50, 0.2)
    stream(mixed(one, two), 0, 20)
    assert len(one.asked) == len(two.asked) == 10
    assert set(one.asked) != set(two.asked)


def test_every_epoch_and_every_pass_has_an_order_of_its_own() -> None:
    mixture = mixed(numbered("rare", 50, 0.2), numbered("other", 10))
    epochs = [stream(mixture, 20 * e, 20 * (e + 1)) for e in range(6)]
    assert len({tuple(name for name, _ in epoch) for epoch in epochs}) == 6
    # Five epochs are a pass over the rare set: the sixth begins another one.
    first, sixth = ({r for name, r in epochs[e] if name == "rare"} for e in (0, 5))
    assert first != sixth


def test_only_the_given_records_are_used() -> None:
    mixture = Mixture([(numbered("a", 10), [2, 3, 5])], 0, "text")
    assert {record for _, record in stream(mixture, 0, 9)} == {"2", "3", "5"}


def test_a_set_without_records_takes_no_place() -> None:
    mixture = Mixture([(numbered("a", 3), []), numbered("b", 3).all], 0, "text")
    assert {name for name, _ in stream(mixture, 0, 6)} == {"b"}
    with pytest.raises(ValueError, match="at least one record"):
        Mixture([(numbered("a", 3), [])], 0, "text")
    with pytest.raises(IndexError):
        mixture[-1]
