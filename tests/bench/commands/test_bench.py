"""`lite-bench` finds every benchmark by its name."""

import subprocess
import sys

import pytest

from bench.commands.bench import NAMES

COMMAND = [sys.executable, "-m", "bench.commands.bench"]


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_explains_itself(name: str) -> None:
    done = subprocess.run([*COMMAND, name, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: ")
    assert "Options:" in done.stdout


def test_an_unknown_benchmark_is_bad_input() -> None:
    done = subprocess.run([*COMMAND, "sped"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "sped" in done.stderr
