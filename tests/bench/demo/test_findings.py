"""What variants of the findings train, and what of them is shown; no training."""

from pathlib import Path

import pytest

from bench.demo import findings
from bench.demo.findings import BASELINE, FEED, SELF, STUDIES, Variant
from bench.demo.questions import SKILLS
from lite import demo
from qlora.recipes.reading import read_recipe
from qlora.recipes.schema import Recipe, differences

HERE = Path("runs/x")


def recipe_of(variant: Variant) -> Recipe:
    settings = findings.settings_of(variant, HERE, HERE, HERE / "data", 20, "float32")
    return read_recipe("demo", settings)


@pytest.mark.parametrize(
    ("study", "name", "differs"),
    [
        ("mix", "pictures only", {"data.sets"}),
        ("mix", "text only", {"data.sets"}),
        ("mix", "two templates", {"data.sets"}),
        ("adapter", "self-attention", {"adapter.targets"}),
        ("adapter", "and cross-attention", {"adapter.targets"}),
        ("adapter", "full rank", {"adapter.rank", "adapter.alpha"}),
        ("adapter", "unquantized base", {"model.base"}),
    ],
)
def test_a_variant_differs_from_the_usual_in_what_it_names(
    study: str, name: str, differs: set[str]
) -> None:
    found = differences(recipe_of(BASELINE), recipe_of(STUDIES[study][name]))
    assert {".".join(one.split(".")[:2]) for one in found} == differs


def test_variants_have_a_folder_each_and_every_study_the_usual_one() -> None:
    variants = {variant for study in STUDIES.values() for variant in study.values()}
    assert len({variant.name for variant in variants}) == len(variants) == 11
    assert all(BASELINE in study.values() for study in STUDIES.values())
    assert [variant.short for variant in STUDIES["short"].values()] == [0.0, 0.05, 0.2, 0.5]
    targets = [recipe_of(variant).adapter.targets for variant in STUDIES["adapter"].values()]
    assert {*targets[0]} == {*SELF} < {*targets[1]} < {*targets[2]} == {*targets[1], *FEED}


def test_quantization_errors_are_those_that_the_export_proved() -> None:
    moved = findings._quantization_error(demo.FOLDER)
    assert {*moved} == {"mean KL divergence", "top-1 disagreement"}
    assert 0 < moved["mean KL divergence"] < 0.01


def test_a_study_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    skills = {skill: {"score": 50.0, "reply_words": 5.0} for skill in SKILLS}
    report = {"variants": {name: {"skills": skills} for name in STUDIES["mix"]}}
    findings.plot(report, tmp_path / "mix.png")
    assert (tmp_path / "mix.png").stat().st_size > 10_000
