"""Dialogues of every kind become questions and answers that alternate."""

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlora.data.conversation import BadRecord
from qlora.data.images import MissingImage
from tests.qlora.data.files import exchanges_of, image_names, read, reader

HUMAN, GPT = "human", "gpt"


def llava(*turns: str, **more: Any) -> dict[str, Any]:
    names = (HUMAN, GPT)
    return {
        "id": "7",
        "conversations": [{"from": names[i % 2], "value": turn} for i, turn in enumerate(turns)],
        **more,
    }


@pytest.mark.parametrize(
    ("stored", "question"),
    [
        ("<image>\nWhat is it?", "What is it?"),
        ("What is it?\n<image>", "What is it?"),
        ("What is it?", "What is it?"),
        ("<image>", ""),
        ("Look:\n<image>\nWhat?", "Look:\nWhat?"),
        ("Look at <image> now.\n\nWhat?", "Look at now.\n\nWhat?"),
    ],
)
def test_llava_image_markers_leave_the_question(tmp_path: Path, stored: str, question: str) -> None:
    found = read(tmp_path, llava(stored, "A bus.", image="a.jpg"), "a.jpg")
    assert exchanges_of(found) == [(question, "A bus.")]
    assert image_names(found) == [["a.jpg"]]
    assert found.id == "7"


def test_llava_trains_every_turn(tmp_path: Path) -> None:
    found = read(tmp_path, llava("<image>\na?", "b", "c?", "d", image="a.jpg"), "a.jpg")
    assert exchanges_of(found) == [("a?", "b"), ("c?", "d")]
    assert image_names(found) == [["a.jpg"], []]
    assert all(exchange.trained for exchange in found.exchanges)


def test_several_images_stand_where_their_markers_stood(tmp_path: Path) -> None:
    record = llava(
        "<image>\n<image>\na?", "b", "<image> c?", "d", image=["1.jpg", "2.jpg", "3.jpg"]
    )
    found = read(tmp_path, record, "1.jpg", "2.jpg", "3.jpg")
    assert exchanges_of(found) == [("a?", "b"), ("c?", "d")]
    assert image_names(found) == [["1.jpg", "2.jpg"], ["3.jpg"]]


def test_several_images_without_markers_stand_first(tmp_path: Path) -> None:
    found = read(tmp_path, llava("a?", "b", image=["1.jpg", "2.jpg"]), "1.jpg", "2.jpg")
    assert image_names(found) == [["1.jpg", "2.jpg"]]


def test_a_marker_in_an_answer_or_without_images_is_text(tmp_path: Path) -> None:
    found = read(tmp_path, llava("a?", "It says <image>.", image="a.jpg"), "a.jpg")
    assert exchanges_of(found) == [("a?", "It says <image>.")]
    found = read(tmp_path, llava("What does <image> mean?", "A tag."))
    assert exchanges_of(found) == [("What does <image> mean?", "A tag.")]
    assert found.images == ()


@pytest.mark.parametrize("dangling", [["c?"], ["c?", ""], ["c?", None]])
def test_a_dangling_end_is_dropped_and_counted(tmp_path: Path, dangling: list[str]) -> None:
    source = reader(tmp_path, [llava("a?", "b", *dangling)])
    assert exchanges_of(source.conversation(0, None)) == [("a?", "b")]  # type: ignore[arg-type]
    assert source.repairs == {"trailing question dropped": 1}


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (llava("a?", ""), "empty answer"),
        (llava("a?", " \n"), "empty answer"),
        (llava("a?", "", "c?", "d"), "empty answer"),
        (llava("", "b"), "empty question"),
        (llava("a?"), "no answer"),
        (llava(), "no answer"),
        (llava("a?", "b", conversations=[{"from": "gpt", "value": "b"}]), "no answer"),
        (llava("a?", "b", image="b.jpg"), "missing image"),
        (llava("a?", "b", image={"x": 1}), "image that is no path"),
        (llava("a?", "b", image="http://host/b.jpg"), "missing image"),
        (llava("<image><image> a?", "b", image="a.jpg"), "more image markers than images"),
        (llava("<image> a?", "b", image=["a.jpg", "a.jpg"]), "fewer image markers than images"),
        (llava("a?", "b", video="x.mp4"), "video"),
        (llava("a?", conversations=[{"from": "narrator", "value": "x"}]), "unknown role"),
        (llava("a?", conversations=[{"value": "x"}]), "message without role or text"),
        (llava("a?", conversations=[{"from": "gpt", "value": 3}]), "value that is no text"),
        (llava("a?", conversations=None), "no answer"),
        ("text", "not an object"),
    ],
)
def test_a_bad_record_says_its_kind(tmp_path: Path, record: Any, kind: str) -> None:
    with pytest.raises(BadRecord) as error:
        read(tmp_path, record, "a.jpg", format="llava")
    assert str(error.value) == kind


def test_sharegpt_merges_roles_and_drops_what_has_no_partner(tmp_path: Path) -> None:
    turns = [("system", "Be brief."), (GPT, "Hi!"), (HUMAN, "a"), (HUMAN, "b?"), (GPT, "c")]
    turns += [(GPT, "d"), (HUMAN, "e?")]
    record = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    source = reader(tmp_path, [record])
    found = source.conversation(0, None)  # type: ignore[arg-type]
    assert source.name == "sharegpt"
    assert found.system == "Be brief."
    assert found.id == "record 0"
    assert exchanges_of(found) == [("a\nb?", "c\nd")]
    assert source.repairs == {"leading answer dropped": 1, "trailing question dropped": 1}


@pytest.mark.parametrize(
    ("key", "who", "what"),
    [("conversation", "role", "content"), ("items", "from", "value"), ("items", "user", "text")],
)
def test_sharegpt_has_other_names(tmp_path: Path, key: str, who: str, what: str) -> None:
    record = {key: [{who: "user", what: "a?"}, {who: "chatgpt", what: "b"}]}
    assert exchanges_of(read(tmp_path, record)) == [("a?", "b")]


@given(
    st.lists(
        st.tuples(st.sampled_from(["system", HUMAN, GPT, "tool"]), st.sampled_from("abc")),
        max_size=12,
    )
)
def test_any_order_of_roles_becomes_alternating(
    tmp_path_factory: pytest.TempPathFactory, turns: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.getbasetemp()
    record = {"conversations": [{"from": who, "value": what} for who, what in turns]}
    spoken = "".join({GPT: "G", "system": ""}.get(who, "U") for who, _ in turns)
    try:
        found = read(folder, record, format="sharegpt")
    except BadRecord:
        assert "UG" not in spoken
        return
    # Each question ends where an answer begins.
    assert len(found.exchanges) == spoken.count("UG") > 0
    assert all(question and answer for question, answer in exchanges_of(found))
    answers = "".join(what for who, what in turns if who == GPT)
    kept = "".join(answer.replace("\n", "") for _, answer in exchanges_of(found))
    assert answers.endswith(kept)


PIXELS = b"\x89PNG pixels"
URL = "data:image/png;base64," + base64.b64encode(PIXELS).decode()


def messages(*contents: Any, **more: Any) -> dict[str, Any]:
    names = ("user", "assistant")
    return {
        "messages": [{"role": names[i % 2], "content": c} for i, c in enumerate(contents)],
        **more,
    }


def part(kind: str, value: Any = None) -> dict[str, Any]:
    return {"type": kind} if value is None else {"type": kind, kind: value}


@pytest.mark.parametrize(
    ("record", "images"),
    [
        (messages("a?", [part("text", "b")]), []),
        (messages("<image>a?", "b", images=["1.jpg"]), [["1.jpg"]]),
        (messages("a?", "b", images=["1.jpg", "2.jpg"]), [["1.jpg", "2.jpg"]]),
        (messages([part("image"), part("text", "a?")], "b", images=["1.jpg"]), [["1.jpg"]]),
        (messages([part("text", "a?"), part("image_url", {"url": "1.jpg"})], "b"), [["1.jpg"]]),
        (messages([part("image", "2.jpg"), "a?"], "b"), [["2.jpg"]]),
        (
            messages([part("image"), part("text", "a?\n<image>")], "b", images=["1.jpg", "2.jpg"]),
            [["1.jpg", "2.jpg"]],
        ),
    ],
)
def test_messages_show_their_images_in_order(
    tmp_path: Path, record: Any, images: list[list[str]]
) -> None:
    found = read(tmp_path, record, "1.jpg", "2.jpg")
    assert exchanges_of(found) == [("a?", "b")]
    assert image_names(found) == (images or [[]])


def test_messages_spread_the_images_column_over_turns(tmp_path: Path) -> None:
    first, second = [part("image"), part("text", "a?")], [part("text", "c?"), part("image")]
    record = messages(first, "b", second, "d", images=["1.jpg", "2.jpg"])
    assert image_names(read(tmp_path, record, "1.jpg", "2.jpg")) == [["1.jpg"], ["2.jpg"]]


def test_a_data_url_carries_the_image(tmp_path: Path) -> None:
    found = read(tmp_path, messages([part("image_url", {"url": URL}), part("text", "a?")], "b"))
    assert found.images[0].read() == PIXELS


@pytest.mark.parametrize(
    ("record", "kind"),
    [
        (messages([part("image"), part("text", "a?")], "b"), "more image markers than images"),
        (messages([part("image_url", {"url": URL[:-1]})], "b"), "damaged data: URL"),
        (messages([part("image_url", {"url": "data:,x"})], "b"), "damaged data: URL"),
        (messages([part("audio")], "b"), "content of an unknown type"),
        (messages("a?", [part("image", "1.jpg"), part("text", "b")]), "image in an answer"),
        (messages(3, "b"), "content that is no text"),
    ],
)
def test_bad_messages_say_their_kind(tmp_path: Path, record: Any, kind: str) -> None:
    with pytest.raises(BadRecord) as error:
        read(tmp_path, record, "1.jpg")
    assert str(error.value) == kind


def test_a_missing_image_in_messages_is_a_missing_image(tmp_path: Path) -> None:
    with pytest.raises(MissingImage):
        read(tmp_path, messages("a?", "b", images=["none.jpg"]))


PREAMBLE = "The conversation between human and AI assistant.\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[|Human|] a?\n[|AI|] b\n[|Human|] c?\n[|AI|] d\n[|Human|] ", [("a?", "b"), ("c?", "d")]),
        ("[|Human|] a?\n[|AI|] b", [("a?", "b")]),
        ("[|Human|] a?\n[|AI|] b [|AI|] c\n[|Human|]", [("a?", "b [|AI|] c")]),
        ("[|Human|] a?\n[|AI|] b\n[|Human|] c?", [("a?", "b")]),
        ("[|Human|] a\n[|Human|] b?\n[|AI|] c\n\nd\n", [("a\nb?", "c\n\nd")]),
    ],
)
def test_baize_turns(tmp_path: Path, text: str, expected: list[tuple[str, str]]) -> None:
    assert exchanges_of(read(tmp_path, {"topic": "t", "input": PREAMBLE + text})) == expected


@pytest.mark.parametrize("text", [PREAMBLE, "[|Human|]", "[|Human|] a?", None])
def test_baize_without_an_answer(tmp_path: Path, text: str | None) -> None:
    with pytest.raises(BadRecord, match="no answer"):
        read(tmp_path, {"topic": "t", "input": text}, format="baize")
