"""Arrays kept on disk come back bit for bit, or not at all."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lite.runtime.feature_store import FeatureStore

SHAPE = (2, 3)
VALUES = np.arange(6, dtype=np.float32).reshape(SHAPE)
KEYS = ["a" * 64, "b" * 64, "c" * 64, "d" * 64]
FILE_BYTES = 32 + VALUES.nbytes


def test_the_disk_is_bounded_and_forgets_the_least_recently_used(tmp_path: Path) -> None:
    cache = FeatureStore(tmp_path, SHAPE, limit=2 * FILE_BYTES)
    for age, key in enumerate(KEYS[:2]):
        cache.put(key, VALUES)
        os.utime(tmp_path / f"{key}.f32", (age, age))
    assert cache.get(KEYS[0]) is not None  # now the most recently used
    cache.put(KEYS[2], VALUES)
    assert [cache.get(key) is not None for key in KEYS[:3]] == [True, False, True]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == 2 * FILE_BYTES


def test_a_read_only_disk_cache_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureStore(tmp_path, SHAPE, limit=FILE_BYTES)
    cache.put(KEYS[0], VALUES)

    def refused(*_: Any, **__: Any) -> None:
        raise PermissionError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refused)
    found = cache.get(KEYS[0])
    assert found is not None
    assert (found == VALUES).all()


def test_a_write_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    FeatureStore(tmp_path, SHAPE, limit=FILE_BYTES).put(KEYS[0], VALUES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", ["<f4", "|u1", "<f2"])
def test_any_type_comes_back_as_it_was_kept(tmp_path: Path, dtype: str) -> None:
    values = np.arange(6).astype(dtype).reshape(SHAPE)
    store = FeatureStore(tmp_path, SHAPE, dtype)
    assert KEYS[0] not in store
    store.put(KEYS[0], values)
    assert KEYS[0] in store
    found = store.get(KEYS[0])
    assert found is not None
    assert found.dtype == values.dtype
    assert (found == values).all()


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b[:40] + bytes([b[40] ^ 1]) + b[41:]]
)
def test_what_was_cut_or_altered_is_not_there(tmp_path: Path, damage: Any) -> None:
    store = FeatureStore(tmp_path, SHAPE)
    store.put(KEYS[0], VALUES)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert store.get(KEYS[0]) is None
    assert FeatureStore(tmp_path, (3, 3)).get(KEYS[0]) is None
