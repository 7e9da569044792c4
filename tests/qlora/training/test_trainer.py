"""A run does what its recipe says, and goes on from where it was stopped as if it had not been."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lite.errors import BadInput, LiteError
from qlora.checkpoints.lora import read_lora
from qlora.training.folder import HELD_OUT, check_data, prepare_folder
from qlora.training.log import read_log
from qlora.training.trainer import Trainer
from tests.processes import PROCESSES
from tests.qlora.training.runs import (
    adapter_bytes,
    log_text,
    run_to_end,
    small,
    train,
    train_as_rank,
    train_in_process,
)
from tests.refusals import check_one_sentence


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, in a process of its own like those it is compared with."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert run_to_end(small(output)) == 0
    return output


def losses(output: Path, name: str = "loss") -> list[float]:
    return [record[name] for record in read_log(output / "log.jsonl") if name in record]


def test_a_run_leaves_what_people_look_for(whole: Path) -> None:
    lora = read_lora(whole / "adapter")
    assert len(lora.deltas) == 8 * 7 + 2 * 5
    facts = json.loads((whole / "adapter" / "training.json").read_text())
    assert facts["base"] == "nf4"
    assert facts["attend"] == "preceding"
    steps = [record["step"] for record in read_log(whole / "log.jsonl") if "loss" in record]
    assert steps == list(range(1, 9))
    evaluation = read_log(whole / "log.jsonl")[-1]
    assert {*evaluation["evaluation"]} == {"images", "text"}
    assert evaluation["answers"][0]["question"]
    assert any((whole / "tensorboard").iterdir())


def test_a_run_begins_with_another_runs_adapter(whole: Path, tmp_path: Path) -> None:
    start = f"adapter.start={whole / 'adapter'}"
    still = ("training.steps=1", "training.warmup=0", "training.learning_rate=1e-12")
    train(small(tmp_path / "run", start, *still))
    begun, ended = (
        load_file(folder / "adapter" / "adapter_model.safetensors")
        for folder in (whole, tmp_path / "run")
    )
    assert begun.keys() == ended.keys()
    assert all(torch.allclose(begun[name], ended[name], atol=1e-9) for name in begun)
    with pytest.raises(BadInput, match="trained with rank 4 but this run has 8"):
        train(small(tmp_path / "other", start, "adapter.rank=8"))


@pytest.mark.parametrize(
    "kills", [3, pytest.param(20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_killed_at_any_moment_a_run_ends_as_if_it_had_not_been(
    whole: Path, tmp_path: Path, kills: int
) -> None:
    chance = random.Random(kills)
    recipe = small(tmp_path / "run")
    process, resume, done = train_in_process(recipe), False, 0
    while True:
        process.join(chance.uniform(0.5, 6.0) if done < kills else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            done += 1
        else:
            assert process.exitcode == 0
            if done >= kills:
                break
            # It got to its end before it was killed: start again.
            shutil.rmtree(tmp_path / "run")
        resume = (tmp_path / "run" / "checkpoints").is_dir()
        process = train_in_process(recipe, resume)
    assert log_text(tmp_path / "run") == log_text(whole)
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(whole)


def test_a_damaged_checkpoint_costs_its_steps_and_nothing_else(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    newest = sorted((output / "checkpoints").iterdir())[-1]
    content = (newest / "optimizer.safetensors").read_bytes()
    (newest / "optimizer.safetensors").write_bytes(content[:-5])
    assert run_to_end(small(output), resume=True) == 0
    assert log_text(output) == log_text(whole)
    assert adapter_bytes(output) == adapter_bytes(whole)


def test_readers_in_other_processes_and_kept_tokens_change_nothing(
    whole: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole / "visual-tokens", output / "visual-tokens")
    assert run_to_end(small(output, "data.workers=2")) == 0
    assert log_text(output) == log_text(whole)
    output = tmp_path / "uncached"
    assert run_to_end(small(output, "training.cache_visual_tokens=false")) == 0
    assert not (output / "visual-tokens").exists()
    assert log_text(output) == log_text(whole)


def test_recomputing_layers_changes_nothing(whole: Path, tmp_path: Path) -> None:
    assert run_to_end(small(tmp_path / "run", "training.checkpointing=false")) == 0
    assert log_text(tmp_path / "run") == log_text(whole)


def test_a_full_disk_costs_no_step(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    assert run_to_end(small(output), largest_file=50_000) == 1
    assert not list((output / "checkpoints").iterdir())
    assert run_to_end(small(output), resume=True) == 0
    assert log_text(output) == log_text(whole)
    assert adapter_bytes(output) == adapter_bytes(whole)


def test_a_finished_run_that_was_killed_before_its_end_is_completed(
    whole: Path, tmp_path: Path
) -> None:
    """The last checkpoint was written, but neither the adapter nor the last evaluation."""
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    shutil.rmtree(output / "adapter")
    lines = log_text(output).splitlines(keepends=True)
    assert "evaluation" in lines[-1]
    (output / "log.jsonl").write_text("".join(lines[:-1]))
    assert train(small(output), resume=True).finished
    assert log_text(output) == log_text(whole)
    assert adapter_bytes(output) == adapter_bytes(whole)


def test_ctrl_c_never_falls_into_a_step(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, done = Trainer._update, []

    def interrupted(trainer: Trainer) -> None:
        if len(done) == 3:
            signal.raise_signal(signal.SIGINT)  # at the moment when weights and step differ
        done.append(trainer.step)
        update(trainer)

    monkeypatch.setattr(Trainer, "_update", interrupted)
    recipe = small(tmp_path / "run", "checkpoints.every=100")
    with pytest.raises(KeyboardInterrupt):
        train(recipe)
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000004"]
    assert run_to_end(recipe, resume=True) == 0
    assert log_text(tmp_path / "run") == log_text(whole)
    assert adapter_bytes(tmp_path / "run") == adapter_bytes(whole)


def test_a_broken_image_among_the_held_out_is_found_at_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (8, 8)).save(data / "good.png")
    (data / "torn.png").write_bytes((data / "good.png").read_bytes()[:40])
    records = [
        {"image": image, "conversations": [said("human", "What?"), said("gpt", "Black.")]}
        for image in ["good.png"] * 5 + ["torn.png"]  # the last one is held out by this seed
    ]
    (data / "a.json").write_text(json.dumps(records))
    settings = ["data.name=null", f"data.root={data}", "data.sets=[{path: a.json}]"]
    settings += ["data.holdout=3", "training.steps=1"]
    with pytest.raises(BadInput) as error:
        train(small(tmp_path / "stops", *settings))
    check_one_sentence(error, "torn.png", "data.bad_records=skip")
    assert not (tmp_path / "stops" / "log.jsonl").exists()
    trainer = train(small(tmp_path / "skips", *settings, "data.bad_records=skip"))
    assert trainer.skipped["broken image"] >= 1


def said(who: str, text: str) -> dict[str, str]:
    return {"from": who, "value": text}


def test_an_image_that_does_not_fit_is_left_out(tmp_path: Path) -> None:
    """Its exchange is beyond max_tokens, so the sample would be one without images."""
    data = tmp_path / "data"
    data.mkdir()
    Image.new("RGB", (8, 8)).save(data / "good.png")
    question = said("human", "<image>\nWhat?")
    short = [question, said("gpt", "Black.")]
    long = [said("human", "Hi"), said("gpt", "word " * 200), *short]
    records = [{"image": "good.png", "conversations": turns} for turns in [long, short] * 3]
    (data / "a.json").write_text(json.dumps(records))
    settings = ["data.name=null", f"data.root={data}", "data.sets=[{path: a.json}]"]
    trainer = train(small(tmp_path / "run", *settings, "training.steps=3", "data.holdout=0"))
    assert trainer.skipped["no image within data.max_tokens"] >= 1


def test_the_engine_takes_nothing_but_processes_from_the_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qlora.training.engine import make_accelerator

    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "8")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    engine = make_accelerator()
    assert (engine.gradient_accumulation_steps, engine.mixed_precision) == (1, "no")


def test_a_learning_rate_that_ends_in_nan_is_named(tmp_path: Path) -> None:
    recipe = small(tmp_path / "run", "training.learning_rate=1e30", "training.warmup=0")
    with pytest.raises(LiteError, match="learning_rate"):
        train(recipe)
    checkpoint = sorted((tmp_path / "run" / "checkpoints").glob("step-*"))
    for path in checkpoint:
        for tensor in load_file(path / "adapter" / "adapter_model.safetensors").values():
            assert torch.isfinite(tensor).all()


def test_a_run_is_not_overwritten_nor_resumed_as_another(whole: Path) -> None:
    with pytest.raises(BadInput) as error:
        train(small(whole))
    check_one_sentence(error, whole, "--resume")
    with pytest.raises(BadInput) as error:
        train(small(whole, "training.seed=7"), resume=True)
    check_one_sentence(error, whole, "training.seed")


OLD = [["a", "1"], ["b", "2"]]
NOW = [*OLD, [HELD_OUT, "3"]]


@pytest.mark.parametrize(
    ("started_with", "by_image", "named"),
    [
        (NOW, True, ""),
        (OLD, False, ""),  # of version 0.1, with nothing that it would have held out otherwise
        (OLD, True, "holds out other samples"),
        ([*OLD, [HELD_OUT, "4"]], False, "holds out other samples"),
        ([["a", "1"], ["b", "7"], [HELD_OUT, "3"]], False, "data set b"),
        ([["b", "2"]], False, "data set a"),
    ],
)
def test_data_are_compared_with_those_of_the_checkpoint(
    tmp_path: Path, started_with: list[list[str]], by_image: bool, named: str
) -> None:
    if not named:
        check_data(NOW, started_with, by_image, tmp_path)
        return
    with pytest.raises(BadInput) as error:
        check_data(NOW, started_with, by_image, tmp_path)
    check_one_sentence(error, named, tmp_path, "another output")


def test_a_run_of_version_0_1_was_paired(tmp_path: Path) -> None:
    recipe = small(tmp_path / "run")
    prepare_folder(recipe, resume=False)
    written = tmp_path / "run" / "recipe.yaml"
    lines = written.read_text().splitlines(keepends=True)
    written.write_text("".join(line for line in lines if "mix:" not in line))
    (tmp_path / "run" / "checkpoints").mkdir()
    old = written.read_text()
    prepare_folder(recipe, resume=True)
    written.write_text(old)
    with pytest.raises(BadInput) as error:
        prepare_folder(small(tmp_path / "run", "data.mix=proportional"), resume=True)
    check_one_sentence(error, "data.mix")


def test_mixed_in_proportion_the_loss_is_the_mean_over_all_samples(tmp_path: Path) -> None:
    from qlora.data.opening import IMAGES, MIXED, open_data
    from qlora.training.assembly import make_trainer
    from qlora.training.engine import make_accelerator

    settings = ("data.mix=proportional", "training.batch=4", "training.steps=4")
    recipe = small(tmp_path / "run", *settings, "evaluation.answers=0")
    prepare_folder(recipe, resume=False)
    trainer = make_trainer(recipe, open_data(recipe), make_accelerator(), lambda *_: None)
    # What is trained is in that mode from the first step on; what only reads images never is.
    assert all(module.training for module in trainer.adapters.modules())
    assert not any(module.training for module in trainer.model.vision_encoder.modules())
    assert [*trainer.feed.streams] == [MIXED]
    trainer.run()
    records = [one for one in read_log(tmp_path / "run" / "log.jsonl") if "loss" in one]
    assert len(records) == 4
    kinds = set()
    for number, record in enumerate(records):
        counts = {one.kind: one.row.samples for one in trainer.feed[number].rows}
        assert sum(counts.values()) == 4
        assert {*counts} == {*record} & {"images", "text"}
        mean = sum(record[kind] * count for kind, count in counts.items()) / 4
        assert record["loss"] == pytest.approx(mean)
        kinds |= {*counts}
    assert IMAGES in kinds
    assert len(kinds) == 2


def test_a_run_goes_on_with_its_own_data_only(whole: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    file = output / "data" / "instructions.json"
    file.write_text(json.dumps(json.loads(file.read_text())[:-1]))
    with pytest.raises(BadInput) as error:
        train(small(output), resume=True)
    check_one_sentence(error, "instructions", "another output")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_loss_falls_and_ends_within_two_percent_of_the_unquantized_run(
    tmp_path: Path,
) -> None:
    settings = ("training.steps=60", "training.batch=4", "adapter.rank=16", "adapter.dropout=0")
    settings += ("evaluation.answers=0", "checkpoints.every=60")
    ends = {}
    for base in ("nf4", "none"):
        trainer = train(small(tmp_path / base, *settings, f"model.base={base}"))
        course = losses(trainer.folder)
        assert sum(course[-10:]) < 0.6 * sum(course[:10])
        ends[base] = sum(course[-10:]) / 10
    assert abs(ends["nf4"] - ends["none"]) < 0.02 * ends["none"]


def test_the_base_is_the_same_after_training(tmp_path: Path) -> None:
    from qlora.data.opening import open_data
    from qlora.training.assembly import make_trainer
    from qlora.training.engine import make_accelerator

    trainer = train(small(tmp_path / "run"))
    recipe = trainer.recipe
    fresh = make_trainer(recipe, open_data(recipe), make_accelerator(), lambda *_: None)
    after = {n: p for n, p in trainer.model.named_parameters() if not p.requires_grad}
    before = {n: p for n, p in fresh.model.named_parameters() if not p.requires_grad}
    assert before.keys() == after.keys()
    for name, parameter in before.items():
        assert torch.equal(parameter, after[name]), name
        assert after[name].grad is None


def by_torchrun(recipe: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0"]
    command += ["-m", "qlora.commands.train", str(recipe)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]


def by_fork(recipe: Path) -> None:
    """What torchrun starts, without its waiting for three times the imports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        PROCESSES.Process(target=train_as_rank, args=(recipe, rank, 2, port)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0


@pytest.mark.parametrize("launch", [by_fork, pytest.param(by_torchrun, marks=pytest.mark.slow)])
def test_two_processes_train_as_one(tmp_path: Path, launch: Callable[[Path], None]) -> None:
    """Over gloo: the same steps, each process with half of the accumulation."""
    settings = ["training.accumulate=2", "training.steps=4", "adapter.dropout=0"]
    train(small(tmp_path / "one", *settings))
    recipe = small(tmp_path / "two", *settings)
    path = tmp_path / "recipe.json"  # JSON is YAML
    path.write_text(json.dumps(recipe.model_dump()))
    launch(path)
    for name in ("loss", "images", "text", "grad_norm"):
        one, two = losses(tmp_path / "one", name), losses(tmp_path / "two", name)
        assert len(one) == 4
        torch.testing.assert_close(torch.tensor(two), torch.tensor(one), rtol=1e-4, atol=1e-6)
    first = load_file(tmp_path / "one" / "adapter" / "adapter_model.safetensors")
    second = load_file(tmp_path / "two" / "adapter" / "adapter_model.safetensors")
    for name, tensor in first.items():
        torch.testing.assert_close(second[name], tensor, rtol=0, atol=5e-4)
