"""The demo model: what lite-chat, lite-serve and lite.load use when no bundle is named."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import lite
from lite import demo
from lite.bundle.attend import PRECEDING
from lite.bundle.manifest import MANIFEST
from lite.errors import BadInput
from tests.lite.terminal.terminals import CTRL_D, READY, plain
from tests.refusals import check_one_sentence

ROOT = Path(__file__).parents[3]
MAIN = "from lite.commands.{} import main; main()"
ASK = ("-p", "What is in the picture?", "--max-tokens", "6")
# Height and width of pictures of noise: like a photograph, and of odd shapes.
SIZES = {"photograph": (900, 1200), "wide": (50, 4000), "high": (4000, 50), "pixel": (1, 1)}
needs_demo = pytest.mark.skipif(
    not (demo.FOLDER / MANIFEST).is_file(), reason=f"there is no demo bundle in {demo.FOLDER} yet"
)


@pytest.fixture(autouse=True)
def _first_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The notice comes once a day: each test is the first call of a person."""
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def standin(bundles: Any) -> Path:
    """A bundle with random weights in the demo's place."""
    return bundles("preceding", "int8")


def code(folder: Path, command: str = "chat") -> str:
    """A program that runs a command with the demo bundle somewhere else."""
    place = f"import pathlib, lite.demo; lite.demo.FOLDER = pathlib.Path({str(folder)!r}); "
    return place + MAIN.format(command)


def run(folder: Path, *arguments: Any, stdin: str = "", exit_code: int = 0) -> tuple[str, str]:
    line = [sys.executable, "-c", code(folder), *map(str, arguments)]
    own = os.environ | {"PYTHONUTF8": "1"}
    done = subprocess.run(line, input=stdin, capture_output=True, encoding="utf-8", env=own)
    assert done.returncode == exit_code, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(params=SIZES)
def noise(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZES[request.param], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    return tmp_path / "noise.png"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    Image.new("RGB", (40, 40), "red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def test_load_without_a_path_opens_the_demo(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "FOLDER", standin)
    assert lite.load().bundle.folder == standin


def test_an_installation_without_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "FOLDER", tmp_path)
    with pytest.raises(BadInput, match="has no demo bundle") as caught:
        lite.load()
    check_one_sentence(caught, tmp_path, "-m BUNDLE")
    out, err = run(tmp_path, *ASK, exit_code=2)
    assert out == ""
    assert err.startswith("Error: This installation has no demo bundle")
    assert err.count("\n") == 1


def test_chat_uses_it_without_m_and_says_once_what_it_is(
    standin: Path, picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named, silent = run(standin, picture, "-m", standin, *ASK)
    assert silent == ""
    assert run(standin, picture, *ASK) == (named, f"{demo.NOTICE}\n")
    assert run(standin, picture, *ASK) == (named, "")  # on the same day
    monkeypatch.setenv("MMGPT_LITE_CACHE", str(tmp_path / "of somebody else"))
    questions = "What is it?\nWhich colour?\n"
    out, err = run(standin, picture, "--max-tokens", "4", "--json", stdin=questions)
    assert out.count('"answer"') == 2
    assert err == f"{demo.NOTICE}\n"


def test_the_notice_is_one_line_about_drawings_and_photographs() -> None:
    assert "\n" not in demo.NOTICE
    for word in ("demo", "drawn scenes", "photographs", "lite-export", "-m"):
        assert word in demo.NOTICE


def test_a_person_in_a_terminal_reads_it_once(standin: Path, terminal: Any) -> None:
    chat = terminal("--no-history", code=code(standin))
    chat.enter("hello")
    chat.enter("/set max-tokens 4")
    chat.wait_for(READY)
    chat.type(CTRL_D)
    assert chat.end() == 0
    # Broken between words, as wide as the terminal is.
    assert " ".join(plain(chat.screen).split()).count(demo.NOTICE) == 1


def test_the_server_uses_it_without_m_and_says_once_what_it_is(standin: Path) -> None:
    line = [sys.executable, "-c", code(standin, "serve"), "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = [server.stderr.readline(), server.stderr.readline()]
        address = said[1].split()[2].rstrip(";,.")
        named = [one["id"] for one in httpx.get(f"{address}/v1/models").json()["data"]]
        server.terminate()
        said += server.stderr.readlines()
    assert said[0] == f"{demo.NOTICE}\n"
    assert said[1].startswith("Serving on ")
    assert named == [demo.NAME]
    assert "".join(said).count(demo.NOTICE) == 1


def test_pictures_that_it_does_not_know_are_answered(standin: Path, noise: Path) -> None:
    out, err = run(standin, noise, *ASK)
    assert out.endswith("\n")
    assert err == f"{demo.NOTICE}\n"


@needs_demo
def test_the_shipped_demo_answers_about_pictures_that_it_does_not_know(noise: Path) -> None:
    out, err = run(demo.FOLDER, noise, *ASK)
    assert out.strip()
    assert err == f"{demo.NOTICE}\n"


@needs_demo
def test_the_shipped_demo_is_as_models_trained_here_are() -> None:
    manifest = lite.load().bundle.manifest
    assert manifest.attend == PRECEDING
    assert manifest.precision["decoder"] == "int8"
    assert all(p["limit"] is None or p["value"] <= p["limit"] for p in manifest.proofs)


def test_wheel_and_source_archive_hold_it_and_its_card(tmp_path: Path) -> None:
    source, made = tmp_path / "source", tmp_path / "made"
    shutil.copytree(ROOT / "lite", source / "lite")
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    bundle = source / "lite" / "demo" / "bundle"
    bundle.mkdir(exist_ok=True)
    for name in (MANIFEST, "decoder.onnx", "decoder.onnx.data"):
        (bundle / name).touch()
    build = (
        "import sys, setuptools.build_meta as build; made = sys.argv[1]\n"
        "build.build_wheel(made); build.build_sdist(made)"
    )
    line = [sys.executable, "-c", build, str(made)]
    done = subprocess.run(line, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    wheel = zipfile.ZipFile(next(made.glob("*.whl"))).namelist()
    with tarfile.open(next(made.glob("*.tar.gz"))) as file:
        archive = file.getnames()
    wanted = [f"bundle/{path.name}" for path in bundle.iterdir()]
    for name in ("README.md", *wanted):
        assert f"lite/demo/{name}" in wheel
        assert any(path.endswith(f"/lite/demo/{name}") for path in archive)
