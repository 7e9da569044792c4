"""`lite-bench` finds every benchmark by its name."""

import subprocess
import sys

import pytest

from bench.commands.bench import BENCHMARKS, command
from lite.cli import run

COMMAND = [sys.executable, "-m", "bench.commands.bench"]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, [name, "--help"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("Usage: ")
    assert "Options:" in said


def test_the_list_of_benchmarks_loads_none_of_them() -> None:
    program = (
        "import sys; from bench.commands.bench import command; "
        "command.main(['--help'], standalone_mode=False); "
        "assert not {'torch', 'transformers', 'onnxruntime'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert all(f"\n  {name} " in done.stdout for name in BENCHMARKS)


def test_an_unknown_benchmark_is_bad_input_and_all_are_named() -> None:
    done = subprocess.run([*COMMAND, "sped"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "sped" in done.stderr
    assert all(name in done.stderr for name in BENCHMARKS)
