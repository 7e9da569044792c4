"""No image of a record is lost without a word, whatever its key and wherever its marker."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest

from qlora.data.conversation import BadRecord
from qlora.data.images import MissingImage
from tests.qlora.data.files import exchanges_of, image_names, read, reader

ALPACA = {"instruction": "What?", "input": "", "output": "A cat."}
DOLLY = {"instruction": "What?", "context": "", "response": "A cat."}
LLAVA = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]}
MESSAGES = {
    "messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}]
}
PIXELS = b"\x89PNG\r\n\x1a\n" + bytes(range(80))
RECORDS = {"alpaca": ALPACA, "dolly": DOLLY, "llava": LLAVA, "messages": MESSAGES}


def asking(name: str, question: str, answer: str = "A cat.") -> dict[str, Any]:
    """A record of a format with this question."""
    return {
        "alpaca": ALPACA | {"instruction": question, "output": answer},
        "dolly": DOLLY | {"instruction": question, "response": answer},
        "llava": {
            "conversations": [
                {"from": "human", "value": question},
                {"from": "gpt", "value": answer},
            ]
        },
        "messages": {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        },
    }[name]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", ["a.jpg"]),
        ("images", "a.jpg"),
        ("image", "a.jpg"),
        ("image", {"path": "a.jpg"}),
        ("image", [{"path": "a.jpg", "bytes": None}]),
        ("Image", "a.jpg"),
        ("image_path", "a.jpg"),
        ("imagePath", "a.jpg"),
        ("image_paths", ["a.jpg"]),
        ("image_file", "a.jpg"),
        ("image-filename", "a.jpg"),
        ("image_name", "a.jpg"),
        ("img", "a.jpg"),
        ("img_path", "a.jpg"),
        ("picture", "a.jpg"),
        ("photo", "a.jpg"),
        ("image_0", "a.jpg"),
    ],
)
@pytest.mark.parametrize(
    "marker", ["", "<image>", "<image>\n", "<Img><ImageHere></Img> ", "<|image|>"]
)
def test_an_image_under_any_of_its_names_is_used(
    tmp_path: Path, name: str, key: str, value: Any, marker: str
) -> None:
    found = read(tmp_path, asking(name, f"{marker}What?") | {key: value}, "a.jpg")
    assert exchanges_of(found) == [("What?", "A cat.")]
    assert image_names(found) == [["a.jpg"]]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image", PIXELS),
        ("image", {"bytes": PIXELS, "path": None}),
        ("image_bytes", PIXELS),
        ("image_base64", base64.b64encode(PIXELS).decode()),
        ("images", [f"data:image/png;base64,{base64.b64encode(PIXELS).decode()}"]),
    ],
)
def test_an_image_within_the_record_is_used(
    tmp_path: Path, name: str, key: str, value: Any
) -> None:
    source = reader(tmp_path, [RECORDS[name]], format=name)
    found = source.read(RECORDS[name] | {key: value}, "x", random.Random(0))
    assert [image.read() for image in found.images] == [PIXELS]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("empty", [None, "", [], [None], [""], {"bytes": None, "path": None}, {}])
def test_an_empty_column_is_no_image(tmp_path: Path, name: str, empty: Any) -> None:
    record = RECORDS[name] | {"image": empty, "images": empty, "image_path": empty, "video": empty}
    found = read(tmp_path, record, format=name)
    assert exchanges_of(found) == [("What?", "A cat.")]
    assert image_names(found) == [[]]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"file": "a.jpg"}, "image under 'file', which is not read"),
        ({"media": ["a.PNG"]}, "image under 'media', which is not read"),
        ({"attachment": {"bytes": b"x", "path": None}}, "image under 'attachment', which"),
        ({"meta": {"where": {"shot": "a.webp"}}}, "image under 'shot', which is not read"),
        ({"thumbnail": "data:image/png;base64,AAAA"}, "image under 'thumbnail', which"),
        ({"blob": b"x"}, "image under 'blob', which is not read"),
        ({"image_id": 42}, "image under 'image_id', which is not read"),
        ({"image": "a.jpg", "mask": "b.png"}, "image under 'mask', which is not read"),
        ({"image": "a.jpg", "images": ["a.jpg", "b.jpg"]}, "different images under"),
        ({"video": "a.mp4"}, "video"),
        ({"audio": {"path": "a.wav"}}, "audio"),
    ],
)
def test_an_image_under_another_key_refuses_the_record(
    tmp_path: Path, name: str, more: dict[str, Any], kind: str
) -> None:
    source = reader(tmp_path, [RECORDS[name]], "a.jpg", "b.jpg", format=name)
    with pytest.raises(BadRecord) as error:
        source.read(RECORDS[name] | more, "x", random.Random(0))
    assert kind in str(error.value)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    "more",
    [
        {"image_width": 640, "image_caption": "A cat.", "num_images": 1, "id": "train/a.jpg"},
        {"images": ["a.jpg"], "image_path": "coco/a.png"},
        {"coco_url": "http://host/x.jpg", "image_url": "https://host/a.jpg", "image_id": 7},
        {"meta": {"file_name": "a.jpg"}},
    ],
)
def test_what_repeats_the_image_or_tells_of_it_changes_nothing(
    tmp_path: Path, name: str, more: dict[str, Any]
) -> None:
    found = read(tmp_path, RECORDS[name] | {"image": "a.jpg"} | more, "a.jpg", format=name)
    assert image_names(found) == [["a.jpg"]]


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    "question",
    [
        "<image>What?",
        "What?\n<image>",
        "<image>\n<image>\nWhich?",
        "See:\n <image> \nWhat?",
        "<ImageHere> What?",
        "<image_1>\nWhat?",
        "<img>a.jpg</img> What?",
    ],
)
def test_a_marker_without_an_image_refuses_the_record(
    tmp_path: Path, name: str, question: str
) -> None:
    with pytest.raises(BadRecord, match="more image markers than images"):
        read(tmp_path, asking(name, question), format=name)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    "answer", ["<image>", "<image>\nThere.", "There: <image>", "a\n<image>\nb"]
)
def test_a_marker_in_an_answer_refuses_the_record(tmp_path: Path, name: str, answer: str) -> None:
    record = asking(name, "What?", answer) | {"image": "a.jpg"}
    with pytest.raises(BadRecord, match="image in an answer"):
        read(tmp_path, record, "a.jpg", format=name)


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does <image> mean?", "A tag."),
        ("Which tag?", "Use <image> here."),
        ("Write a feed.", "<image>\n<url>u</url>\n</image>"),
    ],
)
def test_a_marker_within_a_sentence_is_text_and_is_counted(
    tmp_path: Path, name: str, question: str, answer: str
) -> None:
    source = reader(tmp_path, [asking(name, question, answer)], format=name)
    found = source.conversation(0, random.Random(0))
    assert exchanges_of(found) == [(question, answer)]
    assert source.repairs == {"image marker within a sentence read as text": 1}


def test_an_input_that_is_the_name_of_an_image_is_counted(tmp_path: Path) -> None:
    source = reader(tmp_path, [ALPACA | {"input": "photos/a.jpg"}])
    assert source.conversation(0, random.Random(0)).exchanges[0].context == "photos/a.jpg"
    assert source.repairs == {"text that is the name of an image read as text": 1}


def test_markers_of_an_instruction_its_input_and_its_history_take_the_images_in_order(
    tmp_path: Path,
) -> None:
    record = {
        "instruction": "And <image>?",
        "input": "<image>\nthe second",
        "output": "c",
        "history": [["<image>One?", "a"], ["Two?", "b"]],
        "images": ["1.jpg", "2.jpg", "3.jpg"],
    }
    found = read(tmp_path, record, "1.jpg", "2.jpg", "3.jpg")
    assert exchanges_of(found) == [("One?", "a"), ("Two?", "b"), ("And ?", "c")]
    assert image_names(found) == [["1.jpg"], [], ["2.jpg", "3.jpg"]]
    assert found.exchanges[2].context == "the second"


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user", "content": "What?", "images": ["a.jpg"]},
        {"role": "user", "content": "<image>What?", "image": "a.jpg"},
        {"role": "user", "content": [{"type": "text", "text": "What?", "image": "a.jpg"}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "image_path": "a.jpg"},
                {"type": "text", "text": "What?"},
            ],
        },
    ],
)
def test_an_image_beside_a_messages_text_is_used(tmp_path: Path, turn: dict[str, Any]) -> None:
    found = read(tmp_path, {"messages": [turn, {"role": "assistant", "content": "b"}]}, "a.jpg")
    assert exchanges_of(found) == [("What?", "b")]
    assert image_names(found) == [["a.jpg"]]


def test_a_message_of_a_dialogue_may_have_its_own_image(tmp_path: Path) -> None:
    human = {"from": "human", "value": "<image>What?", "image": "a.jpg"}
    answer = {"from": "gpt", "value": "b"}
    assert image_names(read(tmp_path, {"conversations": [human, answer]}, "a.jpg")) == [["a.jpg"]]
    with pytest.raises(BadRecord, match="image in an answer"):
        read(tmp_path, {"conversations": [human, answer | {"image": "a.jpg"}]}, "a.jpg")


@pytest.mark.parametrize("name", RECORDS)
def test_a_missing_image_tells_the_path_that_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingImage) as error:
        read(tmp_path, RECORDS[name] | {"image": "coco/a.jpg"})
    assert error.value.looked_for == f"{tmp_path.resolve()}/coco/a.jpg"


@pytest.mark.parametrize(
    ("marks", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"weight": None}, True),
        ({"loss": False}, False),
        ({"loss": True}, True),
        ({"loss_weight": 0.0}, False),
        ({"train": False}, False),
        ({"training": False}, False),
    ],
)
@pytest.mark.parametrize("shape", ["messages", "conversations"])
def test_a_turn_marked_not_to_be_trained_is_context(
    tmp_path: Path, shape: str, marks: dict[str, Any], trained: bool
) -> None:
    who, what = ("role", "content") if shape == "messages" else ("from", "value")
    turns = [
        {who: "user", what: "a?"},
        {who: "assistant", what: "b", **marks},
        {who: "user", what: "c?"},
        {who: "assistant", what: "d"},
    ]
    found = read(tmp_path, {shape: turns})
    assert exchanges_of(found) == [("a?", "b"), ("c?", "d")]
    assert [one.trained for one in found.exchanges] == [trained, True]


def test_a_weight_between_is_kept_and_a_record_may_have_one(tmp_path: Path) -> None:
    turns = MESSAGES["messages"]
    half = {"messages": [turns[0], turns[1] | {"loss_weight": 0.5}], "loss_weight": 0.5}
    assert read(tmp_path, half).exchanges[0].weight == 0.25
    assert read(tmp_path, ALPACA | {"loss_weight": 2}).exchanges[0].weight == 2


@pytest.mark.parametrize(
    ("marks", "kind"),
    [
        ({"weight": "0"}, "weight that is no number of at least 0"),
        ({"weight": -1}, "weight that is no number of at least 0"),
        ({"loss_weight": float("nan")}, "loss_weight that is no number of at least 0"),
        ({"loss": True, "weight": 0}, "different weights for one answer"),
        ({"loss": False}, "no answer that is to be trained"),
    ],
)
def test_a_mark_that_cannot_be_followed_refuses_the_record(
    tmp_path: Path, marks: dict[str, Any], kind: str
) -> None:
    turns = MESSAGES["messages"]
    with pytest.raises(BadRecord) as error:
        read(tmp_path, {"messages": [turns[0], turns[1] | marks]})
    assert str(error.value) == kind


def test_answers_in_a_row_of_different_weights_are_refused(tmp_path: Path) -> None:
    turns = MESSAGES["messages"]
    with pytest.raises(BadRecord, match="answers in a row with different weights"):
        read(tmp_path, {"messages": [*turns, turns[1] | {"weight": 0}]})
