"""Captions and questions about images, in the files as they are downloaded."""

import random
from pathlib import Path
from typing import Any

import pytest

from lite.errors import BadInput
from qlora.data.conversation import BadRecord
from qlora.data.formats import open_reader
from qlora.data.formats.pools import CAPTION, WHY
from tests.qlora.data.files import exchanges_of, image_names, read, reader, save
from tests.refusals import check_one_sentence


def test_pools_hold_different_texts() -> None:
    assert len({*CAPTION}) == len(CAPTION) == 10
    assert len({*WHY}) == len(WHY) == 7


@pytest.mark.parametrize("stored", ["image/2.jpg", "2.jpg"])
def test_minigpt4(tmp_path: Path, stored: str) -> None:
    source = reader(tmp_path, {"annotations": [{"image_id": "2", "caption": "A dog."}]}, stored)
    asked = {exchanges_of(source.conversation(0, random.Random(seed)))[0] for seed in range(200)}
    assert asked == {(question, "A dog.") for question in CAPTION}
    assert source.conversation(0, random.Random(0)).images[0].read() == b"picture"


NAME = "val2014/COCO_val2014_000000000042.jpg"
KARPATHY = {
    "dataset": "coco",
    "images": [
        {
            "filepath": "val2014",
            "filename": "COCO_val2014_000000000042.jpg",
            "split": split,
            "cocoid": number,
            "sentences": [{"raw": "One."}, {"raw": "Two."}],
        }
        for number, split in enumerate(("train", "restval", "val", "test"))
    ],
}
OFFICIAL = {
    "info": {},
    "licenses": [],
    "images": [{"id": i, "file_name": "000000000042.jpg"} for i in (1, 2)],
    "annotations": [{"image_id": 1, "caption": caption} for caption in ("One.", "Two.")],
}


@pytest.mark.parametrize(
    ("content", "captions", "count"),
    [
        ([{"caption": "One.", "image": NAME, "image_id": "coco_42"}], {"One."}, 1),
        ([{"caption": ["One.", "Two."], "image": NAME}], {"One.", "Two."}, 1),
        (KARPATHY, {"One.", "Two."}, 2),
        (OFFICIAL, {"One.", "Two."}, 1),
    ],
)
def test_coco_in_all_its_forms(
    tmp_path: Path, content: Any, captions: set[str], count: int
) -> None:
    source = reader(tmp_path, content, NAME)
    assert (source.name, len(source)) == ("coco", count)
    found = [source.conversation(0, random.Random(seed)) for seed in range(50)]
    assert {exchanges_of(one)[0][1] for one in found} == captions
    assert all(exchanges_of(one)[0][0] in CAPTION for one in found)
    assert all(len(one.images) == 1 for one in found)


A_OKVQA: dict[str, Any] = {
    "split": "train",
    "image_id": 42,
    "question_id": "abc",
    "question": "What is it?",
    "choices": ["cat", "dog"],
    "correct_choice_idx": 1,
    "rationales": ["It barks.", "It wags."],
}


@pytest.mark.parametrize(
    ("more", "stored"),
    [
        ({}, "train2017/000000000042.jpg"),
        ({}, "train2014/COCO_train2014_000000000042.jpg"),
        ({}, "000000000042.jpg"),
        ({"image": NAME, "dataset": "aokvqa"}, NAME),
    ],
)
def test_aokvqa(tmp_path: Path, more: dict[str, Any], stored: str) -> None:
    source = reader(tmp_path, [A_OKVQA | more], stored)
    found = [source.conversation(0, random.Random(seed)) for seed in range(200)]
    assert {exchanges_of(one)[0][0] for one in found} == {f"What is it? {why}" for why in WHY}
    assert {exchanges_of(one)[0][1] for one in found} == {
        "The answer is dog. Because It barks. It wags."
    }
    assert (source.name, found[0].id) == ("aokvqa", "abc")
    assert found[0].images[0].read() == b"picture"


def test_an_image_in_a_parquet_cell(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    row = A_OKVQA | {"image": {"bytes": b"pixels", "path": None}}
    path = tmp_path / "a.parquet"
    parquet.write_table(__import__("pyarrow").Table.from_pylist([row]), path)
    assert open_reader(path).conversation(0, random.Random(0)).images[0].read() == b"pixels"


BOOK = {
    "imageURL": "http://host/x.y.png?z=1.jpg",
    "questions": ["Who?", "What?", "Empty?"],
    "answers": ["N. N.", "A book.", ""],
    "title": "T",
    "split": 1,
}


def test_ocr_vqa_as_downloaded(tmp_path: Path) -> None:
    content = {"01": BOOK, "02": BOOK | {"split": 2}, "03": BOOK}
    source = reader(tmp_path, content, "01.png", "02.png")
    assert (source.name, len(source)) == ("ocr_vqa", 1)
    assert source.repairs == {"book without a cover left out": 1}
    found = [source.conversation(0, random.Random(seed)) for seed in range(50)]
    assert {exchanges_of(one)[0] for one in found} == {("Who?", "N. N."), ("What?", "A book.")}
    assert (found[0].id, image_names(found[0])) == ("01", [["01.png"]])


def test_ocr_vqa_as_a_list(tmp_path: Path) -> None:
    found = read(tmp_path, BOOK | {"filename": "a.jpg"}, "a.jpg")
    assert image_names(found) == [["a.jpg"]]


def test_ocr_vqa_without_any_cover_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "data.json", {"01": BOOK})
    with pytest.raises(BadInput, match=r"None of the 1 covers .*01\.png") as error:
        open_reader(path)
    check_one_sentence(error, tmp_path)


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (A_OKVQA | {"correct_choice_idx": None}, "no answer"),
        (A_OKVQA | {"correct_choice_idx": 2}, "choice that is not listed"),
        (A_OKVQA | {"question": ""}, "empty question"),
        (A_OKVQA | {"image_id": 43}, "missing image"),
        (A_OKVQA | {"image_id": None}, "no image_id"),
        ({"image": NAME, "caption": []}, "empty answer"),
        ({"image": NAME, "caption": " "}, "empty answer"),
        ({"image": None, "caption": "A dog."}, "image that is no path"),
        (BOOK | {"filename": NAME, "answers": ["x"]}, "questions and answers differ in number"),
        (BOOK | {"filename": NAME, "answers": ["", None, " "]}, "empty answer"),
    ],
)
def test_a_bad_record_says_its_kind(tmp_path: Path, record: Any, kind: str) -> None:
    with pytest.raises(BadRecord) as error:
        read(tmp_path, record, NAME.replace("val", "train"), NAME)
    assert str(error.value) == kind
