"""The package as a stranger gets it: clean code, clean environment, one direction of imports."""

import ast
import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ORDER = ("lite", "qlora", "export", "bench")  # each may import those before it
RUNTIME = {"numpy", "onnxruntime", "tokenizers", "PIL", "click", "rich", "prompt_toolkit"}
RUNTIME |= {"markdown_it", "platformdirs", "cachetools"}
RUNTIME |= {"pillow_heif"}  # of the extra `heic`, looked for only where a picture needs it
SERVER = {"starlette", "uvicorn", "anyio", "pydantic", "prometheus_client"}
MEGABYTE = 10**6
# Packages beside the tests must not take the place of those of an environment.
CLEAN = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


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
def distributions(tmp_path_factory):
    """Folder with the wheel and the source distribution."""
    # From a copy: building in the tree would leave a build/ folder behind.
    home = tmp_path_factory.mktemp("distributions")
    source = home / "source"
    ignored = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "runs")
    shutil.copytree(ROOT, source, ignore=ignored)
    command = [sys.executable, "-m", "build", "--outdir", home / "dist", source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if "NewConnectionError" in said or "NameResolutionError" in said:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, said
    return home / "dist"


@pytest.fixture(scope="module")
def wheel(distributions):
    return next(distributions.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """The interpreter of an environment with nothing but the wheel and its extra `cpu`."""
    home = tmp_path_factory.mktemp("clean")
    venv.create(home, with_pip=True)
    python = home / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    install = [python, "-m", "pip", "install", "-q", "--no-input", f"{wheel}[cpu]"]
    done = subprocess.run(install, capture_output=True, text=True, cwd=home, env=CLEAN, check=False)
    if "NewConnectionError" in done.stderr or "NameResolutionError" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return python


def test_the_wheel_holds_the_packages_and_what_they_read(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    rooms = {name.partition("/")[0] for name in names if ".dist-info/" not in name}
    assert rooms == set(ORDER)
    for room in ORDER:
        assert f"{room}/py.typed" in names
        for path in modules(room):
            assert path.relative_to(ROOT).as_posix() in names
    data = ("lite/server/web/**/*", "lite/demo/bundle/*", "qlora/recipes/*.yaml")
    for pattern in data:
        wanted = {p.relative_to(ROOT).as_posix() for p in ROOT.glob(pattern) if p.is_file()}
        assert wanted, pattern
        assert wanted <= names


def test_the_distributions_are_what_an_index_takes(distributions):
    command = [sys.executable, "-m", "twine", "check", "--strict", *distributions.iterdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_source_distribution_holds_the_tests_and_the_documentation(distributions):
    with tarfile.open(next(distributions.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(
        ["git", "ls-files", "docs", "examples", "tests", "*.md", "Makefile"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tracked.returncode:
        pytest.skip("this is no clone")
    assert set(tracked.stdout.split()) <= names


def test_the_wheel_shows_its_pictures_where_it_is_published(wheel):
    """A page of an index has no files beside it: pictures of the description are addresses."""
    with zipfile.ZipFile(wheel) as archive:
        file = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = email.message_from_bytes(archive.read(file))
    assert metadata["Author"] == "mmgpt-lite contributors"
    source = dict(url.split(", ") for url in metadata.get_all("Project-URL"))["Source"]
    text = metadata.get_payload()
    pictures = re.findall(r'!\[[^]]*\]\(([^)\s]+)|<img src="([^"]+)"', text)
    assert pictures
    for picture in (markdown or html for markdown, html in pictures):
        assert picture.startswith(f"{source}/raw/main/"), picture
        assert (ROOT / picture.removeprefix(f"{source}/raw/main/")).is_file(), picture


def test_the_wheel_answers_outside_the_source(wheel, clean_python, tmp_path):
    chat = clean_python.with_name("lite-chat")
    run = partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path, env=CLEAN)
    version = run([chat, "--version"])
    assert version.stdout.split()[-1] == wheel.name.split("-")[1]
    question = "What does the animal in the picture say?"
    done = run([chat, ROOT / "examples" / "tiger.png", "-p", question])
    assert done.stdout == "A tiger says roar.\n", done.stderr


def test_the_runtime_installs_small_and_chats_without_torch(clean_python, bundles, tmp_path):
    listed = subprocess.run(
        [clean_python, "-I", "-m", "pip", "list", "--format=freeze"],
        capture_output=True,
        text=True,
    ).stdout.lower()
    assert "mmgpt-lite==" in listed or "mmgpt-lite @" in listed
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
        env=CLEAN,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert done.stderr == b""
