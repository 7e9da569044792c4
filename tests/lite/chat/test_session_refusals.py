"""A session file that is damaged, or made to do harm, is refused in one sentence."""

import io
import json
import os
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lite
from lite.errors import BadInput
from tests.lite.chat.session_files import (
    FIRST,
    HEADER,
    SECOND,
    answer,
    first_version,
    npy,
    npy_claiming,
    packed,
    sealed,
    unpacked,
)
from tests.lite.conftest import DOG
from tests.refusals import check_one_sentence

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def here(bundles: Any) -> lite.Model:
    return lite.load(bundles())


@pytest.fixture(scope="module")
def saved(here: lite.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of one short turn with an image and its KV cache."""
    chat, path = here.chat(""), tmp_path_factory.mktemp("saved") / "short.session"
    answer(chat, "hi", DOG, max_tokens=2)
    chat.save(path, kv=True)
    return path


@pytest.fixture
def refused(here: lite.Model, tmp_path: Path) -> Callable[[bytes], str]:
    """The sentence that refuses a file of the given bytes."""
    path = tmp_path / "x.session"

    def refusal(content: bytes) -> str:
        path.write_bytes(content)
        return refusal_of(here, path)

    return refusal


def refusal_of(here: lite.Model, path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        here.open(path)
    check_one_sentence(caught, path)
    return str(caught.value)


def test_what_is_no_file_cannot_be_read(here: lite.Model, tmp_path: Path) -> None:
    assert "cannot be read (No such file" in refusal_of(here, tmp_path / "x.session")
    assert "cannot be read (not a file)" in refusal_of(here, tmp_path)
    if sys.platform != "win32":
        os.mkfifo(tmp_path / "pipe")
        assert "cannot be read (not a file)" in refusal_of(here, tmp_path / "pipe")


def test_other_files_are_no_sessions(refused: Callable[[bytes], str]) -> None:
    for content in (b"", b"hello", SECOND[:-1], b"mmgpt-lite session 02\n", b"PK\x03\x04" * 99):
        assert "is not a session" in refused(content)
    assert "is truncated or altered" in refused(SECOND)


def test_every_truncation_is_refused(saved: Path, refused: Callable[[bytes], str]) -> None:
    content = saved.read_bytes()
    ends = {*range(200), *range(0, len(content), 1009), *range(len(content) - 200, len(content))}
    for end in ends:
        refused(content[:end])


def test_a_version_cannot_be_passed_for_another(
    saved: Path, refused: Callable[[bytes], str]
) -> None:
    old, new = first_version(saved), saved.read_bytes()
    assert "truncated or altered" in refused(FIRST + new[len(SECOND) :])
    assert "truncated or altered" in refused(SECOND + old[len(FIRST) :])
    header, arrays = unpacked(saved)  # a KV cache is not among what the first version holds
    assert "one too many" in refused(packed(header, arrays, FIRST))


@pytest.mark.parametrize(
    ("header", "exchange"),
    [
        ({"system": 5}, {}),
        ({"system": "\ud800"}, {}),
        ({"exchanges": 5}, {}),
        ({"exchanges": {}}, {}),
        ({"exchanges": [{}]}, {}),
        ({"exchanges": ["x"]}, {}),
        ({"cache": 1}, {}),
        ({"cache": {}}, {}),
        ({"cache": []}, {}),
        ({"cache": None}, {}),  # the arrays are there
        ({"cache": {"ids": [], "keys": [], "seen": []}}, {}),
        ({"cache": {"ids": [1], "keys": [], "seen": []}}, {}),
        ({"cache": {"ids": [1], "keys": [], "seen": [1]}}, {}),
        ({"cache": {"ids": [1], "keys": [[]], "seen": [0]}}, {}),
        ({"cache": {"ids": [10**30], "keys": [], "seen": [0]}}, {}),
        ({"cache": {"ids": [True], "keys": [], "seen": [0]}}, {}),
        ({"cache": {"ids": [1] * 10**5, "keys": [], "seen": [0] * 10**5}}, {}),
        ({}, {"question": 1}),
        ({}, {"question": "\ud800"}),
        ({}, {"answer": None}),
        ({}, {"answer": "\udfff"}),
        ({}, {"answer_ids": ["x"]}),
        ({}, {"answer_ids": {}}),
        ({}, {"answer_ids": [401]}),
        ({}, {"answer_ids": [2]}),
        ({}, {"answer_ids": [-1]}),
        ({}, {"answer_ids": [True]}),
        ({}, {"answer_ids": [40.0]}),
        ({}, {"answer_ids": [10**9]}),
        ({}, {"images": ["unknown"]}),
        ({}, {"images": ["../../x"]}),
        ({}, {"images": [["x"]]}),
        ({}, {"images": []}),  # the array is there
        ({}, {"names": [1]}),
        ({}, {"names": {}}),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    header: dict[str, Any],
    exchange: dict[str, Any],
    saved: Path,
    refused: Callable[[bytes], str],
) -> None:
    right, arrays = unpacked(saved)
    right["exchanges"][0] |= exchange
    assert "is damaged" in refused(packed(right | header, arrays))


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, b"9" * 10_000, b"NaN"],
    ids=lambda raw: str(raw[:8]),
)
def test_a_header_that_is_no_object_is_refused(
    raw: bytes, saved: Path, refused: Callable[[bytes], str]
) -> None:
    assert "is damaged" in refused(packed(raw, unpacked(saved)[1]))


@pytest.mark.parametrize("name", ["image", "kv.0", "kv.7"])
@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[..., :-1],
        lambda a: a[None],
        lambda a: a.astype(np.float64),
        lambda a: a.astype(">f4"),
        lambda a: a.astype(np.float16),
        lambda a: a.view(np.int32),
        np.asfortranarray,
        lambda a: np.full_like(a, np.nan),
        lambda a: np.where(np.arange(a.shape[-1]) == 3, np.inf, a).astype(np.float32),
        lambda a: np.array([print], dtype=object),
        lambda a: b"",
        lambda a: npy(a)[:-1],
        lambda a: npy(a) + b"\0",
        lambda a: npy(a)[:50],
        lambda a: b"\x93NUMPY\x02" + npy(a)[7:],
        lambda a: npy_claiming("<f4", str(a.shape)),
        lambda a: npy_claiming("<f4", "(1099511627776,)"),
        lambda a: npy_claiming("<f4", "(" * 5000 + ")" * 5000),
        lambda a: npy_claiming("|O", "(1,)", b"\x80\x04K\x01."),
        lambda a: npy_claiming("<f4", "(-1,)"),
        lambda a: npy_claiming("<f4,<f4", "(1,)"),
    ],
)
def test_an_array_of_another_kind_is_refused(
    name: str, change: Callable[[np.ndarray], Any], saved: Path, refused: Callable[[bytes], str]
) -> None:
    header, arrays = unpacked(saved)
    name = header["exchanges"][0]["images"][0] if name == "image" else name
    before = arrays[name]
    arrays[name] = change(before)
    if isinstance(arrays[name], np.ndarray) and arrays[name].dtype == object:
        arrays[name] = npy_pickled(arrays[name])
    assert "is damaged" in refused(packed(header, arrays))


def npy_pickled(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, allow_pickle=True)
    return file.getvalue()


def test_arrays_that_lack_or_are_too_many_are_refused(
    saved: Path, refused: Callable[[bytes], str]
) -> None:
    header, arrays = unpacked(saved)
    for name in arrays:
        rest = {n: a for n, a in arrays.items() if n != name}
        assert "is missing, or one too many" in refused(packed(header, rest))
    for name in ("extra", "kv.8", "kv.00", f"{HEADER}.npy", "../kv.0", "a" * 64):
        refused(packed(header, arrays | {name: arrays["kv.0"]}))
    assert "is damaged" in refused(sealed(b""))
    assert "is damaged" in refused(sealed(b"PK\x05\x06" + bytes(18)))  # an empty archive


def zipped(entries: list[tuple[str, bytes]], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_archives_that_play_tricks_are_refused(
    saved: Path, refused: Callable[[bytes], str]
) -> None:
    header, arrays = unpacked(saved)
    text = npy(np.frombuffer(json.dumps(header).encode(), np.uint8))
    entries = [(f"{HEADER}.npy", text), *((f"{n}.npy", npy(a)) for n, a in arrays.items())]
    assert "two arrays have one name" in refused(sealed(zipped([*entries, entries[-1]])))
    assert "two arrays have one name" in refused(sealed(zipped([*entries, ("kv.0", b"")])))
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        squeezed = sealed(zipped(entries, compression=method))
        assert "claims to be larger than the file" in refused(squeezed)


def test_harmful_files_cost_no_memory(saved: Path, refused: Callable[[bytes], str]) -> None:
    header, arrays = unpacked(saved)
    bomb = zipped([(f"{HEADER}.npy", bytes(256 * MEGABYTE))], compression=zipfile.ZIP_DEFLATED)
    many = zipped([(f"{i}.npy", b"") for i in range(60_000)])
    # The size that the table of contents claims for the last array, in place of the right one.
    right = len(npy(arrays["kv.7"])).to_bytes(4, "little")
    large = packed(header, arrays)[len(SECOND) + 32 :].replace(right, b"\xf0\xff\xff\x7f")
    claims = packed(header, arrays | {"kv.0": npy_claiming("<f4", "(2, 4, 1073741824, 16)")})
    long = packed(b'"' + b"x" * 6 * MEGABYTE + b'"', {})
    for content in (sealed(bomb), sealed(many), sealed(large), claims, long):
        tracemalloc.start()
        assert "is damaged" in refused(content)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 16 * MEGABYTE


def test_no_pickle_is_ever_loaded(
    saved: Path, refused: Callable[[bytes], str], tmp_path: Path
) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "harm",))

    header, arrays = unpacked(saved)
    evil = npy_pickled(np.array([Harm()], dtype=object))
    for change in ({HEADER: evil}, {"kv.0": evil}):
        assert "is damaged" in refused(packed(header, arrays | change))
    assert not (tmp_path / "harm").exists()
