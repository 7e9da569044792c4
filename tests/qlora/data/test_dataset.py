"""A data set knows before training what can be used, and says why the rest cannot."""

import pickle
from pathlib import Path
from typing import Any

import pytest

from lite.errors import BadInput
from qlora.data.dataset import DataSet
from tests.qlora.data.files import pictures, save
from tests.refusals import check_one_sentence

SKIP = {"missing_images": "skip", "bad_records": "skip"}


def about(image: str | None, answer: str = "yes", id: str = "x") -> dict[str, Any]:
    record = {"id": id, "conversations": [{"from": "human", "value": "why?"}]}
    record["conversations"].append({"from": "gpt", "value": answer})
    return record if image is None else record | {"image": image}


MIXED = [
    about("a.jpg", id="0"),
    about(None, id="1"),
    about("b.jpg", id="2"),
    about("a.jpg", "", id="3"),
    about("c.jpg", id="4"),
    about(None, "half \ud800", id="5"),
]


def open_set(folder: Path, content: Any, **options: Any) -> DataSet:
    pictures(folder, "images/a.jpg")
    save(folder / "data.json", content)
    return DataSet.open(folder, "data.json", images="images", **options)


def test_records_are_sorted_by_use_and_the_rest_is_counted(tmp_path: Path) -> None:
    data = open_set(tmp_path, MIXED, **SKIP)
    assert (data.name, data.format, len(data)) == ("data", "llava", 2)
    assert (data.with_images, data.without_images, data.usable) == ([0], [1], [0, 1])
    assert data.problems == {"missing image": 2, "empty answer": 1, "text with half a character": 1}
    assert data.examples["missing image"] == ["2", "4"]
    path = f"{tmp_path.resolve()}/images/b.jpg"
    assert data.left_out[f"missing image (the first was looked for at {path!a})"] == 2


@pytest.mark.parametrize(
    ("policy", "setting"),
    [("missing_images", "data.missing_images=skip"), ("bad_records", "data.bad_records=skip")],
)
def test_without_the_policy_nothing_starts(tmp_path: Path, policy: str, setting: str) -> None:
    with pytest.raises(BadInput) as error:
        open_set(tmp_path, MIXED, **SKIP | {policy: "error"})
    path = f"{tmp_path.resolve()}/images/b.jpg"
    check_one_sentence(error, "4 of 6", "2 x missing image (first: '2')", path, setting)
    assert str(error.value).count("=skip") == 1


def test_an_image_outside_the_root_is_an_error_whatever_the_policy(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        open_set(tmp_path / "data", [about("a.jpg"), about("../../secret.jpg")], **SKIP)
    check_one_sentence(error, "../../secret.jpg")


def test_a_set_without_any_usable_record_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        open_set(tmp_path, [about("b.jpg")], **SKIP)
    check_one_sentence(error, "1 x missing image")


def test_repairs_are_counted(tmp_path: Path) -> None:
    record = about(None)
    record["conversations"].insert(0, {"from": "gpt", "value": "Hello!"})
    data = open_set(tmp_path, [record])
    assert data.repairs == {"leading answer dropped": 1}
    assert len(data) == 1


def test_a_sample_is_the_beginning_of_one_random_order(tmp_path: Path) -> None:
    content = [about("a.jpg" if i % 3 else "b.jpg", id=str(i)) for i in range(60)]
    sampled = [open_set(tmp_path, content, sample=k, seed=1, **SKIP).usable for k in (5, 20, 100)]
    assert [len(one) for one in sampled] == [5, 20, 40]
    assert {*sampled[0]} < {*sampled[1]} < {*sampled[2]}
    assert sampled[0] != list(range(5))
    assert open_set(tmp_path, content, sample=5, seed=1, **SKIP).usable == sampled[0]
    assert open_set(tmp_path, content, sample=5, seed=2, **SKIP).usable != sampled[0]


def test_random_choices_depend_on_seed_name_epoch_and_record(tmp_path: Path) -> None:
    record = {"image": "a.jpg", "caption": [f"caption {i}" for i in range(50)]}
    one = open_set(tmp_path, [record] * 4, seed=1)
    copies = [open_set(tmp_path, [record] * 4, seed=1), pickle.loads(pickle.dumps(one))]
    for i in range(4):
        for copy in copies:
            assert one.conversation(i, 2) == copy.conversation(i, 2)
    other_seed = open_set(tmp_path, [record] * 4, seed=2)
    other_name = open_set(tmp_path, [record] * 4, seed=1, name="other")
    drawn = {
        tuple(data.conversation(i, epoch).exchanges[0].answer for i in range(4))
        for data, epoch in ((one, 0), (one, 1), (other_seed, 0), (other_name, 0))
    }
    assert len(drawn) == 4


def test_progress_is_reported(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    open_set(tmp_path, [about(None)] * 2500, progress=lambda *at: seen.append(at))
    assert seen == [(0, 2500), (1000, 2500), (2000, 2500), (2500, 2500)]


@pytest.mark.parametrize("path", ["../data.json", "/data.json", "C:\\data.json"])
def test_data_outside_the_root_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(BadInput) as error:
        DataSet.open(tmp_path, path)
    check_one_sentence(error, path, tmp_path)


def test_a_missing_image_folder_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "data.json", MIXED)
    with pytest.raises(BadInput) as error:
        DataSet.open(tmp_path, "data.json", images="imgs")
    check_one_sentence(error, "imgs")
