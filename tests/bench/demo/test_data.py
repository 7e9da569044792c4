"""The demo's data sets are read by the readers that everybody's data goes through."""

import json
import random
from pathlib import Path

import pytest

from bench.demo import data as demo_data
from bench.demo import fonts
from bench.demo.corpus import document, documents, write_corpus
from bench.demo.data import CAPTIONS, Job, captioned, write
from bench.demo.kinds import KINDS, statement
from bench.demo.questions import SKILLS, example
from bench.demo.scoring import Expected, score
from lite.errors import BadInput
from qlora.data.dataset import DataSet
from qlora.recipes.schema import SetSettings
from tests.refusals import check_one_sentence

COUNTS = {CAPTIONS: 4} | dict.fromkeys(SKILLS, 4)
needs_fonts = pytest.mark.skipif(
    any(fonts.installed(file) is None for file in (fonts.EMOJI, *fonts.FONTS.values())),
    reason="Noto Color Emoji, DejaVu and Liberation fonts are not all installed",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[SetSettings]]:
    folder = tmp_path_factory.mktemp("demo")
    return folder, write(folder, Job("test", COUNTS, side=64))


def opened(folder: Path, settings: SetSettings) -> DataSet:
    return DataSet.open(folder, settings.path, images=settings.images, name=settings.name)


@needs_fonts
def test_every_record_is_read_with_its_pictures(written: tuple[Path, list[SetSettings]]) -> None:
    folder, made = written
    assert {Path(one.path).stem for one in made} == {CAPTIONS, "visual", "pairs", "instructions"}
    for settings in made:
        found = opened(folder, settings)
        assert not found.problems
        for index in range(len(found)):
            conversation = found.conversation(index, epoch=0)
            assert all(image.load() is not None for image in conversation.images)


@needs_fonts
def test_what_is_read_are_the_examples(written: tuple[Path, list[SetSettings]]) -> None:
    folder, made = written
    read = {}
    for settings in made[1:]:
        found = opened(folder, settings)
        read |= {(c := found.conversation(i, 0)).id: c for i in range(len(found))}
    for skill in SKILLS:
        for number in range(4):
            one = example(skill, "test", number)
            if skill == "text":
                continue
            exchanges = read[one.id].exchanges
            assert [e.question for e in exchanges] == [turn.question for turn in one.turns]
            assert [e.answer for e in exchanges] == [turn.answer for turn in one.turns]
            assert [len(e.images) for e in exchanges] == [len(turn.scenes) for turn in one.turns]


@needs_fonts
def test_the_truth_beside_it_marks_the_answers_right(
    written: tuple[Path, list[SetSettings]],
) -> None:
    folder, _ = written
    lines = (folder / "test" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    truths = [json.loads(line) for line in lines]
    assert len(truths) == 4 * len(SKILLS)
    for turn in (turn for truth in truths for turn in truth["turns"]):
        assert score(turn["answer"], Expected.from_json(turn["expected"])) == 1
        assert all((folder / "test" / "images" / image).is_file() for image in turn["images"])


@needs_fonts
def test_a_run_that_was_cut_goes_on_and_ends_the_same(
    written: tuple[Path, list[SetSettings]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, drawn = Job("test", COUNTS, side=64), []

    def cut(scene: object, side: int) -> None:
        drawn.append(scene)
        raise KeyboardInterrupt

    real = demo_data.draw
    with monkeypatch.context() as patch:
        patch.setattr(demo_data, "draw", lambda s, n: real(s, n) if len(drawn) > 9 else cut(s, n))
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, job)
    write(tmp_path, job)
    files = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {p.relative_to(written[0]) for p in written[0].rglob("*") if p.is_file()}
    for file in files:
        assert (tmp_path / file).read_bytes() == (written[0] / file).read_bytes()


@needs_fonts
def test_pictures_of_another_side_are_not_mixed_in(
    written: tuple[Path, list[SetSettings]],
) -> None:
    folder, _ = written
    with pytest.raises(BadInput) as error:
        write(folder, Job("test", COUNTS, side=96))
    check_one_sentence(error, folder)


def test_an_unknown_skill_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as error:
        write(tmp_path, Job("train", {"juggling": 1}))
    check_one_sentence(error, "juggling", "presence")


def test_short_answers_come_in_the_part_that_is_asked_for(tmp_path: Path) -> None:
    def outputs(short: float) -> list[str]:
        write(tmp_path / str(short), Job("train", {"text": 200}, short=short))
        path = tmp_path / str(short) / "train" / "instructions.json"
        return [record["output"] for record in json.loads(path.read_text(encoding="utf-8"))]

    long, some, half = outputs(0.0), outputs(0.2), outputs(0.5)
    changed = [{i for i in range(200) if one[i] != long[i]} for one in (some, half)]
    assert changed[0] < changed[1]
    assert 10 < len(changed[0]) < 60 < len(changed[1]) < 130


def test_captions_of_a_scene_agree_with_it() -> None:
    for number in range(30):
        scene, captions = captioned("train", number)
        assert len(captions) == 3
        for kind in scene.kinds:
            assert all(any(w in c.lower() for w in lower(kind)) for c in captions)


def lower(kind: str) -> list[str]:
    return [word.lower() for word in KINDS[kind].words]


def test_the_corpus_is_the_same_every_time_and_has_every_fact(tmp_path: Path) -> None:
    write_corpus(tmp_path / "corpus.jsonl", 1500)
    lines = (tmp_path / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert texts == list(documents(1500))
    assert texts[7] == document(7) != document(7, seed=1)
    whole = "\n".join(texts)
    kinds = random.Random(0).sample(sorted(KINDS), 40)
    for kind in (KINDS[name] for name in kinds):
        assert all(statement(kind, relation) in whole for relation in kind.relations)
