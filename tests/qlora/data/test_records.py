"""Records come out of a file by index, and a damaged file is refused with the position."""

import gzip
import json
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lite.errors import BadInput
from qlora.data import json_spans
from qlora.data.records import open_records
from tests.refusals import check_one_sentence, refused

RECORDS = [{"id": "1", "text": "größer, 例 \U0001f600"}, {"id": "2"}, {"id": "3", "n": [1.5, None]}]
# In parquet every row has every column.
COLUMNS = {key: None for record in RECORDS for key in record}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
per_test_folder = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def write(path: Path) -> Path:
    """RECORDS in the form that the name asks for."""
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        table = __import__("pyarrow").Table.from_pylist([COLUMNS | r for r in RECORDS])
        parquet.write_table(table, path, row_group_size=2)
        return path
    lines = "jsonl" in path.name or path.name == "lines.json"
    text = (
        "\r\n\n".join(json.dumps(r, ensure_ascii=False) for r in RECORDS)
        if lines
        else json.dumps(RECORDS, ensure_ascii=False, indent=1)
    )
    data = text.encode("utf-8-sig" if "bom" in path.name else "utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "a.json",
        "a.jsonl",
        "lines.json",
        "bom.json",
        "bom.jsonl",
        "a.json.gz",
        "a.jsonl.gz",
        "a.parquet",
    ],
)
def test_every_container_gives_its_records_by_index(tmp_path: Path, name: str) -> None:
    found = open_records(write(tmp_path / name))
    assert len(found) == 3
    copied = pickle.loads(pickle.dumps(found))
    for records in (found, copied):
        for i in (2, 0, 1):
            assert COLUMNS | records[i] == COLUMNS | RECORDS[i]


def test_an_object_is_given_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"annotations": [1, 2]}')
    assert open_records(path) == {"annotations": [1, 2]}


@per_test_folder
@given(st.lists(values, max_size=6), st.booleans(), st.sampled_from([None, 1]), st.integers(1, 40))
def test_any_list_comes_back_through_any_window(
    tmp_path: Path, expected: list[Any], ascii: bool, indent: int | None, window: int
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(expected, ensure_ascii=ascii, indent=indent), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "_WINDOW", window)
        found = open_records(path)
    assert [found[i] for i in range(len(found))] == expected


@per_test_folder
@given(st.lists(values, max_size=4), st.data(), st.integers(1, 40))
def test_any_truncation_of_a_list_is_refused(
    tmp_path: Path, records: list[Any], data: st.DataObject, window: int
) -> None:
    path = tmp_path / "a.json"
    whole = json.dumps(records, ensure_ascii=False).encode()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_spans, "_WINDOW", window)
        refused(open_records, path)


@pytest.mark.parametrize(
    ("name", "content", "position"),
    [
        ("a.json", b'[{"a": 1}, {"b": ', "byte 17"),
        ("a.json", b'[{"a": 1} {"b": 2}]', "byte 10"),
        ("a.json", b'[{"a": 1}] x', "byte 11"),
        ("a.json", b'[{"a": nul}]', "byte 7"),
        ("a.json", '{"größe": '.encode(), "byte 12"),
        ("a.json", b"[" * 100_000, "byte 1 (nested too deeply)"),
        ("a.json", b"hello", "byte 0"),
        ("a.json", b"", "empty"),
        ("a.json.gz", b"no gzip", "bytes"),
        ("a.parquet", b"no parquet", "parquet"),
        ("a.csv", b"a,b", ".jsonl"),
    ],
)
def test_what_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes, position: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(open_records, tmp_path / name, position)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(open_records, tmp_path / "a.json", "does not exist")
    refused(open_records, tmp_path, "folder")


@pytest.mark.parametrize(
    ("line", "position"), [(b'{"b": ', "byte 15"), (b'{"b": "\xff"}', "byte 16")]
)
def test_a_damaged_line_is_refused_when_it_is_read(
    tmp_path: Path, line: bytes, position: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line)
    found = open_records(path)
    assert found[0] == {"a": 1}
    with pytest.raises(BadInput) as error:
        found[1]
    check_one_sentence(error, path, position)


def test_parquet_without_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    refused(open_records, path, "pip install pyarrow")
