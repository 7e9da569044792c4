"""What the documentation repeats of the code is what the code has, and the site builds."""

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import lite
from docs.scripts.generate import pages
from export.bundle import write_bundle
from export.precision import precision
from export.verify import FP32_BUNDLE_BYTES, KL_LIMITS, prove
from lite import demo
from lite.terminal.slash_commands import COMMANDS
from qlora.families.flamingo import read_flamingo
from qlora.recipes.reading import shipped
from tests.conftest import CHECKPOINTS, VARIANTS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(page: str, name: str) -> list[list[str]]:
    """Rows of the table between the page's comments."""
    text = (DOCS / page).read_text(encoding="utf-8")
    text = text.partition(f"<!-- table: {name} -->")[2].partition("<!-- end of table -->")[0]
    rows = [line.strip("|").split("|") for line in text.strip().splitlines()]
    assert len(rows) > 2, f"{page} has no table of {name}"
    return [[cell.strip() for cell in row] for row in rows[2:]]


@pytest.mark.parametrize("file", pages(), ids=lambda file: file.name)
def test_a_generated_page_is_what_the_code_says(file):
    assert file.read_text(encoding="utf-8") == pages()[file], "run make reference"


def test_the_table_of_slash_commands_is_the_terminal_s_own():
    uses = [
        [f"`{name} {command.usage}`".replace(" `", "`"), command.help]
        for name, command in COMMANDS.items()
    ]
    assert table("chat.md", "slash commands") == uses


def test_the_table_of_proofs_has_the_steps_and_limits_of_an_export(tmp_path):
    weights = read_flamingo(**CHECKPOINTS, **VARIANTS["lora"])
    chosen = precision("int8")
    made = write_bundle(weights, tmp_path / "b", chosen, lambda b: prove(b, weights, chosen))
    shown = {tuple(row) for row in table("export.md", "proofs")}
    for proof in made.proofs:
        limit = "" if proof["limit"] is None else f"{proof['limit']:g}"
        assert (proof["step"], proof["against"], proof["measure"], limit) in shown
    steps = {proof["step"] for proof in made.proofs}
    kept = json.loads((demo.FOLDER / "manifest.json").read_text(encoding="utf-8"))["proofs"]
    assert {row[0] for row in shown} <= steps | {proof["step"] for proof in kept}


def test_the_limits_in_words_are_those_of_the_code():
    text = " ".join((DOCS / "export.md").read_text(encoding="utf-8").split())
    exact, int8, int4 = KL_LIMITS["fp32"], KL_LIMITS["int8"], KL_LIMITS["int4"]
    assert KL_LIMITS["fp16"] == exact
    assert f"is {exact:g} for fp32 and fp16, {int8:g} for int8 and {int4:g} for int4" in text
    assert f"larger than {FP32_BUNDLE_BYTES >> 30} GiB" in text


def test_every_variable_that_the_code_reads_is_explained():
    names = set()
    for room in ("lite", "qlora", "export", "bench"):
        for path in (ROOT / room).rglob("*.py"):
            names |= set(re.findall(r"\"(MMGPT_LITE_\w+)\"", path.read_text(encoding="utf-8")))
    assert "MMGPT_LITE_CACHE" in names
    explained = (DOCS / "chat.md").read_text(encoding="utf-8")
    assert {name for name in names if f"`{name}`" not in explained} == set()


def test_all_recipes_are_named():
    page = (DOCS / "training.md").read_text(encoding="utf-8")
    assert {name for name in shipped() if f"`{name}`" not in page} == set()


def test_readme_is_as_long_as_a_person_reads():
    assert len(README.split()) < 1400


def test_links_lead_to_files():
    for page in [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_recording_shows_what_the_demo_model_answers():
    svg = (DOCS / "images" / "terminal.svg").read_text(encoding="utf-8")
    lines: dict[str, str] = {}
    for y, text in re.findall(r'<text [^>]*?y="([\d.]+)"[^>]*>([^<]*)</text>', svg):
        lines[y] = lines.get(y, "") + unescape(text).replace("\N{NO-BREAK SPACE}", " ")
    said = [line.strip() for line in lines.values()]
    asked = [(at, line.partition("> ")[2]) for at, line in enumerate(said) if "> " in line]
    assert len(asked) == 3
    chat = lite.load().chat()
    images = [ROOT / "examples" / "tiger.png", None, None]
    for (at, question), image in zip(asked, images, strict=True):
        answer = "".join(event.text for event in chat.ask(question, image))
        assert said[at + 1] == answer
        assert question in README
        assert answer in README
    assert f"-p '{asked[0][1]}'" in README


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site; a warning is an error."""
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_describes_every_public_name(site):
    page = (site / "reference" / "python" / "index.html").read_text(encoding="utf-8")
    for name in set(lite.__all__) - {"__version__"}:
        assert f'id="lite.{name}"' in page, name
    assert "lite.__version__" in page
    assert 'id="lite.server.app.create_app"' in page


def test_the_site_loads_nothing_from_the_network(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*src="?(https?://[^">\s]+)', text)
        styles = re.findall(r'<link[^>]*rel="(?:stylesheet|preconnect)"[^>]*>', text)
        assert loaded == []
        assert not any("://" in style for style in styles)
