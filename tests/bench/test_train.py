"""The benchmark of a training step, run as a person would on a machine without a GPU."""

import json
import os
import subprocess
import sys

import pytest

from bench.train_loops import OURS, PLAIN, Task, measure

LENGTHS = ("32", "48")


@pytest.mark.parametrize("images", [True, False], ids=["images", "text"])
def test_both_loops_compute_the_same_step_after_step(images):
    ours, plain = (
        measure(Task(loop, "tiny", (32, 48), 2, images, "float32", "cpu")) for loop in (OURS, PLAIN)
    )
    assert ours["trained"] == plain["trained"]
    for length in LENGTHS:
        assert len(ours[length]["losses"]) == 3
        assert ours[length]["losses"] == pytest.approx(plain[length]["losses"], rel=1e-4)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    line = [sys.executable, "-m", "bench.train", "--shape", "tiny", "--compute", "float32"]
    line += ["--repeat", "1", "--steps", "2", "-o", str(folder / "report.json")]
    line += [part for length in LENGTHS for part in ("--length", length)]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(line, capture_output=True, text=True, env=hidden)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def report(files):
    folder, printed = files
    written = json.loads((folder / "report.json").read_text())
    assert json.loads(printed) == written
    return written


@pytest.mark.slow
def test_it_names_device_versions_and_command(report):
    assert report["device"]["name"].startswith("CPU")
    assert report["device"]["measured"]
    assert "--shape tiny" in report["command"]
    assert {"torch", "transformers", "peft", "bitsandbytes", "python"} <= report.keys()
    assert tuple(report["lengths"]) == LENGTHS


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
def test_it_gives_speed_memory_ratios_and_share_of_the_roofline(report, length):
    found = report["lengths"][length]
    for loop in (OURS, PLAIN):
        rates = found[loop]["tokens_per_second"]
        assert 0 < rates["min"] <= rates["median"] <= rates["max"]
        assert found[loop]["peak_bytes"] > 0
        assert found[loop]["share_of_roofline"] >= 0
    assert found["same_losses"]
    assert found["speed_ratio"] > 0
    assert found["memory_ratio"] > 0
    assert found["planned_peak_bytes"] > 0
    assert found["roofline_tokens_per_second"] > 0


@pytest.mark.slow
def test_a_plot_is_drawn_where_it_can_be(files):
    folder, _ = files
    pytest.importorskip("matplotlib")
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
