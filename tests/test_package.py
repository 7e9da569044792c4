"""The package as a stranger gets it: clean code, clean environment, one direction of imports."""

import ast
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("lite", "qlora", "export", "bench")  # each may import those before it
RUNTIME = {"numpy", "onnxruntime", "tokenizers", "PIL", "click", "rich", "prompt_toolkit"}
SERVER = {"starlette", "uvicorn", "anyio", "pydantic", "prometheus_client"}
MEGABYTE = 10**6


def modules(room: str) -> list[Path]:
    return sorted((ROOT / room).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """First component of everything that a module imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize("room", ORDER)
def test_imports_run_one_way(room):
    later = set(ORDER[ORDER.index(room) + 1 :])
    assert {path.name: imported(path) & later for path in modules(room)} == {
        path.name: set() for path in modules(room)
    }


def test_the_runtime_imports_nothing_heavy():
    for path in modules("lite"):
        foreign = imported(path) - set(sys.stdlib_module_names) - RUNTIME - {"lite"}
        serves = "server" in path.parts or path.name == "serve.py"
        assert foreign <= (SERVER if serves else set()), path


def test_lint_format_and_types_are_clean():
    for tool in (["ruff", "check"], ["ruff", "format", "--check"], ["mypy"]):
        done = subprocess.run(
            [sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def clean_python(tmp_path_factory):
    """The interpreter of an environment with nothing but `.[cpu]`."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    # From a copy: building in the tree would leave a build/ folder behind.
    source = home / "source"
    for name in (*ORDER, "setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        source.mkdir(exist_ok=True)
        copy(ROOT / name, source / name)
    install = [python, "-m", "pip", "install", "-q", "--no-input", f"{source}[cpu]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if "NewConnectionError" in done.stderr or "NameResolutionError" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return python


def test_the_runtime_installs_small_and_chats_without_torch(clean_python, bundles, tmp_path):
    listed = subprocess.run(
        [clean_python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True
    ).stdout.lower()
    for heavy in ("torch==", "transformers==", "open_clip", "onnx=="):
        assert heavy not in listed
    packages = next(clean_python.parents[1].rglob("site-packages"))
    size = sum(f.stat().st_size for f in packages.rglob("*") if f.is_file())
    assert size < 300 * MEGABYTE
    image = ROOT / "tests" / "fixtures" / "mmgpt-tiny" / "images" / "0.png"
    chat = clean_python.with_name("lite-chat")
    done = subprocess.run(
        [chat, image, "-m", bundles("lora", "int8"), "-p", "What is this?", "--max-tokens", "5"],
        capture_output=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == b""
