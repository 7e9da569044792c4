"""What is trained on and what is held out of it follow from the recipe, by image."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from lite.errors import BadInput
from qlora.data.holdout import hold_out, singles
from qlora.data.opening import IMAGES, MIXED, TEXT, Data, open_data
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import Recipe
from tests.qlora.data.files import pictures, save
from tests.refusals import check_one_sentence


def about(image: str | list[str], number: int) -> dict[str, Any]:
    turns = [{"from": "human", "value": f"What is {number}?"}, {"from": "gpt", "value": "It."}]
    return {"id": str(number), "image": image, "conversations": turns}


def text(number: int) -> dict[str, str]:
    return {"instruction": f"Say {number}.", "input": "", "output": "It."}


def recipe(folder: Path, *settings: str) -> Recipe:
    sets = [f"{{path: {path.name}}}" for path in sorted(folder.glob("*.json"))]
    own = ["data.name=null", f"data.root={folder}", f"data.sets=[{', '.join(sets)}]"]
    return read_recipe("tiny", [*own, "data.mix=proportional", *settings])


def opened(folder: Path, *settings: str) -> Data:
    return open_data(recipe(folder, *settings))


def drawn(data: Data, stream: str, count: int) -> list[str]:
    """What the first samples of a stream ask."""
    return [data.streams[stream][i][0].exchanges[0].question for i in range(count)]


def images_in(data: Data, kind: str = IMAGES) -> set[str]:
    mixture = data.kinds[kind]
    return {ref.name for i in range(mixture.epoch_length) for ref in mixture[i][0].images}


@pytest.fixture
def three_records_a_picture(tmp_path: Path) -> Path:
    names = [f"{i}.jpg" for i in range(40)]
    pictures(tmp_path, *names)
    records = [about(name, 10 * i + j) for i, name in enumerate(names) for j in range(3)]
    random.Random(0).shuffle(records)
    save(tmp_path / "a.json", records[:70])
    save(tmp_path / "b.json", records[70:])
    return tmp_path


@pytest.mark.parametrize("seed", range(5))
def test_no_held_out_picture_is_trained(three_records_a_picture: Path, seed: int) -> None:
    data = opened(three_records_a_picture, "data.holdout=18", f"training.seed={seed}")
    held = {ref.name for talk, _ in data.held_out[IMAGES] for ref in talk.images}
    assert not held & images_in(data)
    # Every record of a held-out picture is held out, in whichever set it is.
    assert len(data.held_out[IMAGES]) == 3 * len(held)
    assert 18 <= len(data.held_out[IMAGES]) <= 20
    assert data.kinds[IMAGES].epoch_length == 120 - len(data.held_out[IMAGES])
    again = opened(three_records_a_picture, "data.holdout=18", f"training.seed={seed}")
    assert again.held_out == data.held_out
    assert again.held_out_digest == data.held_out_digest


def test_pictures_that_a_record_shows_together_stay_together(tmp_path: Path) -> None:
    pictures(tmp_path, *(f"{i}.jpg" for i in range(12)))
    chain = [about([f"{i}.jpg", f"{i + 1}.jpg"], i) for i in range(3)]  # 0-1, 1-2, 2-3
    save(tmp_path / "a.json", chain + [about(f"{i}.jpg", i) for i in range(4, 12)])
    for seed in range(8):
        data = opened(tmp_path, "data.holdout=4", f"training.seed={seed}")
        held = {ref.name for talk, _ in data.held_out[IMAGES] for ref in talk.images}
        assert not held & images_in(data)
        assert held & {f"{i}.jpg" for i in range(4)} in (set(), {f"{i}.jpg" for i in range(4)})


def test_records_with_a_picture_of_their_own_are_held_out_as_ever(tmp_path: Path) -> None:
    """The choice of version 0.1, which its runs are resumed with."""
    pictures(tmp_path, *(f"{i}.jpg" for i in range(30)))
    save(tmp_path / "a.json", [about(f"{i}.jpg", i) for i in range(30)])
    data = opened(tmp_path, "data.holdout=6", "training.seed=42")
    from qlora.data.shuffle import random_of

    expected = sorted(random_of(42, "holdout", 0).sample(range(30), 6))
    assert [int(talk.id) for talk, _ in data.held_out[IMAGES]] == expected
    assert not data.grouped


def test_a_picture_of_more_than_half_is_never_held_out(tmp_path: Path) -> None:
    pictures(tmp_path, "a.jpg", "b.jpg")
    save(tmp_path / "a.json", [about("a.jpg", i) for i in range(7)] + [about("b.jpg", 7)])
    data = opened(tmp_path, "data.holdout=3")
    assert [talk.images[0].name for talk, _ in data.held_out[IMAGES]] == ["b.jpg"]
    assert len(data.notes) == 1
    assert "1 samples (images) are held out instead of data.holdout=3" in data.notes[0]
    save(tmp_path / "a.json", [about("a.jpg", i) for i in range(7)])
    with pytest.raises(BadInput) as error:
        opened(tmp_path, "data.holdout=3")
    check_one_sentence(error, "data.holdout=3", "share one image")


@pytest.fixture
def few_texts(tmp_path: Path) -> Path:
    pictures(tmp_path, *(f"{i}.jpg" for i in range(117)))
    save(tmp_path / "a.json", [about(f"{i}.jpg", i) for i in range(117)])
    save(tmp_path / "b.json", [text(i) for i in range(3)])
    return tmp_path


def test_in_proportion_every_sample_is_shown_once_an_epoch(few_texts: Path) -> None:
    data = opened(few_texts, "data.holdout=0", "training.batch=4", "training.steps=null")
    assert [*data.streams] == [MIXED]
    shown = Counter(drawn(data, MIXED, 120))
    assert len(shown) == 120
    assert {*shown.values()} == {1}
    assert sum(question.startswith("Say") for question in shown) == 3
    assert data.steps(read_recipe("tiny", ["training.steps=null"]).training) == 120 // 8
    settings = recipe(few_texts, "training.batch=4").training
    assert data.drawn(settings) == {IMAGES: pytest.approx(3.9), TEXT: pytest.approx(0.1)}
    assert data.repeats(settings) == {IMAGES: pytest.approx(1), TEXT: pytest.approx(1)}
    report = data.mix_report(settings)
    assert report is not None
    assert "98 % of them have images" in report.sentence
    assert not report.warning


def test_paired_the_fewer_are_shown_as_often_as_it_takes(few_texts: Path) -> None:
    data = opened(few_texts, "data.holdout=0", "data.mix=paired", "training.batch=4")
    assert [*data.streams] == [IMAGES, TEXT]
    assert Counter(drawn(data, TEXT, 117)) == {f"Say {i}.": 39 for i in range(3)}
    settings = recipe(few_texts, "training.batch=4").training
    assert data.repeats(settings) == {IMAGES: pytest.approx(1), TEXT: pytest.approx(39)}
    report = data.mix_report(settings)
    assert report is not None
    assert "an epoch shows each of these 39 times" in report.sentence
    assert "data.mix=proportional" in report.warning


def test_one_kind_alone_is_the_same_however_it_is_mixed(tmp_path: Path) -> None:
    save(tmp_path / "b.json", [text(i) for i in range(9)])
    one, two = (
        opened(tmp_path, "data.holdout=2", f"data.mix={m}") for m in ("paired", "proportional")
    )
    assert [*one.streams] == [*two.streams] == [TEXT]
    assert drawn(one, TEXT, 20) == drawn(two, TEXT, 20)
    assert one.mix_report(recipe(tmp_path).training) is None


def test_fewer_samples_without_images_are_for_pairs(few_texts: Path) -> None:
    with pytest.raises(BadInput, match=r"data\.mix=paired"):
        opened(few_texts, "training.text_batch=2")


@pytest.mark.parametrize(("sizes", "expected"), [((10, 10, 10), (1, 0, 0)), ((5, 20), (0, 1))])
def test_fewer_held_out_than_there_are_sets_come_from_the_largest(
    sizes: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    groups = [group for n, size in enumerate(sizes) for group in singles(n, range(size))]
    held = Counter(number for number, _ in hold_out(groups, 1, seed=3))
    assert tuple(held[n] for n in range(len(sizes))) == expected
