"""What was used last stays, up to a weight."""

import threading

from lite.recent import RecentlyUsed


def test_it_forgets_what_was_not_used_for_longest() -> None:
    kept: RecentlyUsed[str, bytes] = RecentlyUsed(4, len)
    kept.put("a", b"11")
    kept.put("b", b"22")
    assert kept.get("a") == b"11"
    kept.put("c", b"33")
    assert [kept.get(key) for key in "abc"] == [b"11", None, b"33"]


def test_a_new_value_counts_instead_of_the_old_one() -> None:
    kept: RecentlyUsed[str, bytes] = RecentlyUsed(4, len)
    for _ in range(3):
        kept.put("a", b"111")
    kept.put("b", b"2")
    assert [kept.get(key) for key in "ab"] == [b"111", b"2"]


def test_one_thing_heavier_than_the_limit_is_kept_while_it_is_the_last() -> None:
    kept: RecentlyUsed[str, bytes] = RecentlyUsed(1, len)
    for key in "ab":
        kept.put(key, b"123")
        assert kept.get(key) == b"123"
    assert kept.get("a") is None


def test_threads_may_share_it() -> None:
    kept: RecentlyUsed[int, bytes] = RecentlyUsed(50, len)
    wrong: list[int] = []

    def work(start: int) -> None:
        for i in range(start, start + 5000):
            kept.put(i % 97, bytes([i % 97]))
            if kept.get(i % 97) not in (None, bytes([i % 97])):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert sum(kept.get(i) is not None for i in range(97)) <= 50
