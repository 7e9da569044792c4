"""Orders by key: bijections, reproducible, with access to any place."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlora.data.shuffle import Permutation, random_of, seed_of

KEYS = st.tuples(st.integers(), st.text(max_size=5))


@given(n=st.integers(0, 400), key=KEYS)
def test_every_element_comes_once(n: int, key: tuple[int, str]) -> None:
    order = Permutation(n, *key)
    assert sorted(order[i] for i in range(n)) == list(range(n))
    assert len(order) == n


@given(n=st.integers(2, 10**12), key=KEYS, data=st.data())
def test_places_of_huge_ranges_do_not_collide(n: int, key: tuple[int, str], data) -> None:
    first, second = (data.draw(st.integers(0, n - 1)) for _ in range(2))
    order = Permutation(n, *key)
    assert 0 <= order[first] < n
    assert (order[first] == order[second]) == (first == second)


@pytest.mark.parametrize("n", [2, 3, 5, 16, 33])
def test_over_the_keys_every_element_is_equally_likely_everywhere(n: int) -> None:
    keys = 300 * n
    orders = [Permutation(n, "fair", key) for key in range(keys)]
    for place in range(n):
        counts = Counter(order[place] for order in orders)
        # 300 expected; six standard deviations.
        assert all(abs(counts[element] - 300) < 6 * 300**0.5 for element in range(n))


def test_another_key_is_another_order() -> None:
    def first(*key: int | str) -> list[int]:
        return [Permutation(1000, *key)[i] for i in range(20)]

    assert first(1, "a") == first(1, "a")
    assert len({tuple(first(*key)) for key in [(1, "a"), (2, "a"), (1, "b"), ("1", "a")]}) == 4


@pytest.mark.parametrize("index", [-1, 5])
def test_a_place_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(5, "key")[index]


@given(first=KEYS, second=KEYS)
def test_seeds_tell_keys_apart_and_fit_everywhere(
    first: tuple[int, str], second: tuple[int, str]
) -> None:
    assert (seed_of(*first) == seed_of(*second)) == (first == second)
    assert 0 <= seed_of(*first) < 2**63


def test_random_choices_depend_on_the_key_only() -> None:
    assert random_of("a", 1).random() == random_of("a", 1).random()
    assert random_of("a", 1).random() != random_of("a", 2).random()


def test_orders_stay_what_they_were() -> None:
    """A change here would make every resumed run go on with other data."""
    assert [Permutation(10, 42, "images")[i] for i in range(10)] == [1, 0, 8, 3, 4, 7, 2, 5, 6, 9]
    assert seed_of("adapter", 42) == 5451816970342265426
