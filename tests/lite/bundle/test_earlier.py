"""What earlier versions wrote still opens: a bundle's manifest and a session of the demo model."""

import json
import shutil
from pathlib import Path

import pytest

import lite
from lite import demo
from lite.bundle.manifest import MANIFEST, read_manifest
from lite.errors import BadInput
from lite.text.template import MMGPT

EARLIER = Path(__file__).parents[2] / "fixtures" / "earlier"
# As the version that wrote the session counted them.
PROMPT = [
    *(1, 387, 420, 267, 398, 1986, 2001, 279, 2006, 1554, 423, 1993, 432, 1793, 2023, 2006, 355),
    *(265, 530, 299, 2006, 1554, 1503, 274, 1791, 2023, 2006, 2009, 530, 481, 265, 370, 350, 1735),
    *(259, 1757, 778, 1999, 1553, 1554, 423, 1993, 432, 1793, 2023, 2006, 2009, 271, 732, 265, 426),
    *(299, 2006, 1554, 1503, 274, 1791, 2023, 2006, 2009, 1075, 397, 1309, 1999),
]


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The demo bundle with its manifest of version 1, which named its template."""
    folder = Path(shutil.copytree(demo.folder(), tmp_path / "demo"))
    shutil.copy(EARLIER / "manifest-1.json", folder / MANIFEST)
    return folder


def test_a_bundle_of_version_1_is_the_same_model(earlier: Path) -> None:
    assert json.loads((earlier / MANIFEST).read_text())["template"] == "mmgpt"
    old, new = lite.load(earlier), lite.load()
    assert old.template == MMGPT
    assert old.bundle.manifest == new.bundle.manifest
    assert old.bundle.digest == new.bundle.digest


def test_a_version_1_with_an_unknown_template_is_refused(earlier: Path) -> None:
    data = json.loads((earlier / MANIFEST).read_text())
    (earlier / MANIFEST).write_text(json.dumps(data | {"template": "vicuna"}))
    with pytest.raises(BadInput, match="'vicuna' is unknown to this version; install a newer"):
        read_manifest(earlier)


def test_another_template_is_another_model(earlier: Path) -> None:
    before = lite.load(earlier).bundle.digest
    changed = MMGPT.to_json() | {"system": "Be brief."}
    data = json.loads((earlier / MANIFEST).read_text()) | {"version": 2, "template": changed}
    (earlier / MANIFEST).write_text(json.dumps(data))
    assert lite.load(earlier).bundle.digest != before


def test_a_session_of_an_earlier_version_goes_on() -> None:
    chat = lite.load().open(EARLIER / "demo.session")
    assert [e.question for e in chat.exchanges] == ["What is red?", "And what is blue?"]
    assert [e.answer for e in chat.exchanges] == [
        "A red car is used for driving a family around.",
        "A snake eats mice.",
    ]
    assert chat.system == "You are brief."
    assert chat.prompt()[0] == PROMPT
    assert "".join(event.text for event in chat.ask("Why?", max_tokens=12))
