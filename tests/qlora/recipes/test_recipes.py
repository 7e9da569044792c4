"""A recipe says everything, and what it says wrong is said back in one sentence."""

from pathlib import Path

import pytest

from lite.errors import BadInput
from qlora.recipes.reading import known_keys, read_recipe, shipped
from qlora.recipes.schema import differences
from tests.refusals import check_one_sentence

PUBLISHED_TARGETS = [
    *("q_proj", "k_proj", "v_proj", "o_proj"),
    *("to_q", "to_kv", "to_out"),
    *("ff.1", "ff.3"),
]
MINIMAL = """
model: {name: tiny}
adapter: {targets: [q_proj]}
data: {name: tiny}
training: {learning_rate: 1e-3}
output: runs/here
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_recipe_is_valid(name: str) -> None:
    assert read_recipe(name).output == f"runs/{name}"


def test_the_published_run_is_translated_number_by_number() -> None:
    recipe = read_recipe("mmgpt-9b")
    assert recipe.adapter.model_dump() == {
        "rank": 16,
        "alpha": 16,
        "dropout": 0.0,
        "targets": PUBLISHED_TARGETS,
        "rslora": False,
        "dora": False,
        "start": None,
    }
    training = recipe.training
    assert training.batch * training.accumulate == 8 * 16
    assert (training.learning_rate, training.schedule, training.warmup) == (1e-5, "cosine", 100)
    assert (training.weight_decay, training.decay_only) == (0.1, "gated_cross_attn_layer")
    assert (training.clip, training.epochs, recipe.data.max_tokens) == (1.0, 1, 512)
    samples = {Path(one.path).name: one.sample for one in recipe.data.sets if one.sample}
    assert samples == {
        "aokvqa_v1p0_train.json": 5000,
        "coco_karpathy_train.json": 512,
        "dataset.json": 512,
    }


def test_the_all_linear_recipe_adds_the_feed_forward_and_nothing_else() -> None:
    plain, wide = read_recipe("mmgpt-9b"), read_recipe("mmgpt-9b-all-linear")
    assert differences(plain, wide) == ["adapter.targets"]
    assert {*wide.adapter.targets} - {*plain.adapter.targets} == {
        "gate_proj",
        "up_proj",
        "down_proj",
    }


def test_a_folder_replaces_the_one_of_a_published_model() -> None:
    model = read_recipe("llava-1.5-7b", ["model.model=my-llava"]).model
    assert (model.name, model.model) == ("llava-1.5-7b", "my-llava")


def test_settings_on_the_command_line_replace_single_values(recipe: Path) -> None:
    settings = [
        "training.learning_rate=2e-4",
        "model.base=none",
        "data.name=null",
        "data.sets=[{path: a.json}]",
    ]
    changed = read_recipe(str(recipe), [*settings, "data.sets.0.weight=0.5"])
    assert changed.training.learning_rate == 2e-4
    assert changed.model.base == "none"
    assert changed.data.sets[0].weight == 0.5


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ("training.learning_rat=1", "training.learning_rate"),
        ("training.lr=1", "training.learning_rate"),
        ("training.rank=8", "adapter.rank"),
        ("data.max_token=5", "data.max_tokens"),
        ("dat.max_tokens=5", "data"),
        ("data.sets=[{pth: x}]", "data.sets.path"),
        ("lora_alpha=3", "adapter.alpha"),
    ],
)
def test_an_unknown_key_comes_with_the_one_that_was_meant(
    recipe: Path, setting: str, meant: str
) -> None:
    with pytest.raises(BadInput) as error:
        read_recipe(str(recipe), [setting])
    assert str(error.value).endswith(f"did you mean {meant}?")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("training.learning_rate=fast", "training.learning_rate"),
        ("training.learning_rate=.nan", "training.learning_rate"),
        ("training.learning_rate=0", "training.learning_rate"),
        ("adapter.rank=0", "adapter.rank"),
        ("adapter.targets=[]", "adapter.targets"),
        ("checkpoints.keep=1", "checkpoints.keep"),
        ("model.base=int4", "model.base"),
        ("model.name=null", "llama"),
        ("model.name=mmgpt-13b", "mmgpt-9b, mplug-owl-7b, llava-1.5-7b"),
        ("model.model=my-llava", "name=tiny is a set of parts"),
        ("data.name=null", "sets"),
        ("data.template=chatml", "mmgpt"),
        ("data.sets.3.weight=1", "data.sets"),
        ("training", "section.key=value"),
        ("training.seed=[1", "training.seed"),
        ("output.folder=x", "output.folder"),
    ],
)
def test_an_unusable_setting_is_named(recipe: Path, setting: str, named: str) -> None:
    with pytest.raises(BadInput) as error:
        read_recipe(str(recipe), [setting])
    check_one_sentence(error, named)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model: {name: tiny", "line"),
        ("- a\n- b", "sections"),
        ("", "sections"),
        (MINIMAL + "output: twice", "twice"),
        (MINIMAL.replace("output: runs/here", ""), "output"),
        ("!!python/object/apply:os.system ['true']", "YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, named: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(BadInput) as error:
        read_recipe(str(path))
    check_one_sentence(error, path, named)


@pytest.mark.parametrize("name", ["mmgpt", "folder", "mmgpt-9b.yaml"])
def test_a_recipe_that_is_not_there_names_the_shipped_ones(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadInput) as error:
        read_recipe(name)
    check_one_sentence(error, name, *shipped())


def test_a_folder_does_not_hide_a_shipped_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert read_recipe("tiny").model.name == "tiny"


def test_only_what_changes_the_weights_counts_as_a_difference(recipe: Path) -> None:
    first = read_recipe(str(recipe))
    free = ["output=elsewhere", "data.workers=3", "checkpoints.every=7", "evaluation.every=2"]
    assert differences(first, read_recipe(str(recipe), free)) == []
    other = ["training.seed=1", "adapter.rank=4", "data.max_tokens=99"]
    assert differences(first, read_recipe(str(recipe), other)) == sorted(
        o.partition("=")[0] for o in other
    )


def test_every_key_of_a_shipped_recipe_is_a_known_one() -> None:
    assert {"data.sets.path", "training.learning_rate", "output"} <= {*known_keys()}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("? [a]\n: b\n", "key"),
        ("[" * 3000, "deeply"),
    ],
)
def test_strange_yaml_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(BadInput) as error:
        read_recipe(str(tmp_path / "recipe.yaml"))
    check_one_sentence(error, problem)


def test_own_data_are_not_silently_ignored(recipe: Path) -> None:
    with pytest.raises(BadInput) as error:
        read_recipe(str(recipe), ["data.sets=[{path: a.json}]"])
    check_one_sentence(error, "data.name=null")
