"""Dolly, the Alpaca family, and finding out which format a file has."""

from pathlib import Path
from typing import Any

import pytest

from lite.errors import BadInput
from qlora.data.conversation import BadRecord
from qlora.data.formats import FORMATS, open_reader
from tests.qlora.data.files import exchanges_of, read, reader, save
from tests.refusals import refused

ALPACA = {"instruction": "Say a.", "input": "", "output": "a"}
DOLLY = {"instruction": "Say a.", "context": "", "response": "a", "category": "open_qa"}


@pytest.mark.parametrize(("given", "context"), [("", ""), ("Of [1]\nthis.", "Of [1]\nthis.")])
def test_dolly(tmp_path: Path, given: str, context: str) -> None:
    path = save(tmp_path / "dolly.jsonl", [DOLLY | {"context": given}])
    source = open_reader(path)
    found = source.conversation(0, None)  # type: ignore[arg-type]
    assert source.name == "dolly"
    assert exchanges_of(found) == [("Say a.", "a")]
    assert found.exchanges[0].context == context


@pytest.mark.parametrize(
    ("given", "context"), [("", ""), (None, ""), ("<noinput>", ""), ("b", "b")]
)
def test_alpaca(tmp_path: Path, given: str | None, context: str) -> None:
    found = read(tmp_path, ALPACA | {"input": given, "text": "Below is ..."})
    assert exchanges_of(found) == [("Say a.", "a")]
    assert found.exchanges[0].context == context
    assert found.system is None


def test_alpaca_with_history_and_system(tmp_path: Path) -> None:
    history = [["Hi", "Hello"], ["What?", "That."]]
    found = read(tmp_path, ALPACA | {"system": "Be brief.", "history": history})
    assert exchanges_of(found) == [("Hi", "Hello"), ("What?", "That."), ("Say a.", "a")]
    assert found.system == "Be brief."
    assert all(exchange.trained for exchange in found.exchanges)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (ALPACA | {"output": "\n"}, "empty answer"),
        (ALPACA | {"instruction": ""}, "empty question"),
        (ALPACA | {"output": 3}, "output that is no text"),
        (ALPACA | {"history": [["a"]]}, "history that is no list of pairs"),
        (ALPACA | {"history": "abc"}, "history that is no list of pairs"),
        (ALPACA | {"history": 3}, "history that is no list of pairs"),
        (DOLLY | {"response": ""}, "empty answer"),
    ],
)
def test_a_bad_record_says_its_kind(tmp_path: Path, record: Any, kind: str) -> None:
    with pytest.raises(BadRecord) as error:
        read(tmp_path, record)
    assert str(error.value) == kind


TALK = [{"from": "human", "value": "a?"}, {"from": "gpt", "value": "b"}]


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ([{"id": "1", "image": "a.jpg", "conversations": TALK}], "llava"),
        ([{"image": "a.jpg", "conversations": TALK}, {"conversations": TALK}], "llava"),
        ([{"conversations": TALK}, {"image": "a.jpg", "conversations": TALK}], "llava"),
        ([{"id": "1", "conversations": TALK}], "sharegpt"),
        ([{"messages": [{"role": "user", "content": "a?"}]}], "messages"),
        ([ALPACA], "alpaca"),
        ([DOLLY], "dolly"),
        ([{"topic": "t", "input": "x [|Human|] a? [|AI|] b [|Human|] "}], "baize"),
        ([{"questions": [], "answers": [], "filename": "a.jpg"}], "ocr_vqa"),
        ([{"choices": [], "rationales": []}], "aokvqa"),
        ([{"image": "a.jpg", "caption": "b"}], "coco"),
        ({"annotations": [{"image_id": "2", "caption": "b"}]}, "minigpt4"),
    ],
)
def test_the_format_is_found_by_content(tmp_path: Path, content: Any, name: str) -> None:
    assert reader(tmp_path, content).name == name


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ([ALPACA | DOLLY], "dolly or alpaca"),
        ([{"a": 1, "b": 2}], "a, b"),
        ([1, 2], "no objects"),
        ({"a": 1}, "type"),
        ([], "no records"),
        ({}, "no records"),
        ([{"user_input": "a", "responses_and_scores": []}], "alpaca_gpt4_data.json"),
    ],
)
def test_what_is_no_format_is_refused(tmp_path: Path, content: Any, part: str) -> None:
    refused(open_reader, save(tmp_path / "data.json", content), part)


def test_a_given_format_settles_it(tmp_path: Path) -> None:
    assert reader(tmp_path, [ALPACA | DOLLY], format="dolly").name == "dolly"


@pytest.mark.parametrize("name", sorted({*FORMATS} - {"minigpt4", "coco", "ocr_vqa"}))
def test_an_object_where_a_list_should_be_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "data.json", {"a": 1})
    refused(lambda path: open_reader(path, None, name), path, name)


@pytest.mark.parametrize("name", ["minigpt4", "coco"])
def test_an_object_of_another_build_is_refused(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / "data.json", {"annotations": [1], "images": 2})
    refused(lambda path: open_reader(path, None, name), path, "no list of objects")


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="llava, minigpt4"):
        reader(tmp_path, [ALPACA], format="lava")
