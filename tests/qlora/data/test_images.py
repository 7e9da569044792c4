"""Image references find their file below the root, and nothing outside it."""

import pickle
import unicodedata
from pathlib import Path

import pytest

from lite.errors import BadInput
from qlora.data.conversation import BadRecord
from qlora.data.images import ImageRoot, MissingImage
from tests.qlora.data.files import pictures
from tests.refusals import check_one_sentence


@pytest.mark.parametrize(
    ("stored", "reference"),
    [
        ("a.jpg", "a.jpg"),
        ("a.jpg", "./x/../a.jpg"),
        ("deep/a.jpg", "deep\\a.jpg"),
        ("a.jpg", "gqa/images/a.jpg"),
        ("images/a.jpg", "gqa/images/a.jpg"),
        ("a.png", "ocr_vqa/images/a.jpg"),
        ("a.gif", "a.jpg"),
        ("COCO_train2014_000000000042.jpg", "coco/train2017/000000000042.jpg"),
        ("val2014/COCO_val2014_000000000042.jpg", "000000000042.jpg"),
        ("train2017/000000000042.jpg", "val2014/COCO_val2014_000000000042.jpg"),
    ],
)
def test_a_reference_finds_its_file(tmp_path: Path, stored: str, reference: str) -> None:
    found = pictures(tmp_path, stored).find(reference)
    assert found.name == reference
    assert found.path == tmp_path.resolve() / stored


def test_the_path_as_given_wins_over_a_shorter_one(tmp_path: Path) -> None:
    root = pictures(tmp_path, "a.jpg", "b/a.jpg")
    assert root.find("b/a.jpg").path == tmp_path.resolve() / "b/a.jpg"


def test_an_absolute_path_inside_the_root_is_taken(tmp_path: Path) -> None:
    root = pictures(tmp_path, "a.jpg")
    assert root.find(str(tmp_path / "a.jpg")).path == tmp_path.resolve() / "a.jpg"


def test_alternatives_are_tried(tmp_path: Path) -> None:
    assert pictures(tmp_path, "b.jpg").find("a.jpg", "b.jpg").path == tmp_path.resolve() / "b.jpg"


@pytest.mark.parametrize("reference", ["a.jpg", "folder", "x\0.jpg", "\ud800.jpg", "."])
def test_what_is_no_file_is_missing(tmp_path: Path, reference: str) -> None:
    root = pictures(tmp_path, "folder/b.jpg")
    with pytest.raises(MissingImage, match="missing image") as error:
        root.find(reference)
    assert isinstance(error.value, BadRecord)
    assert error.value.reference == reference
    assert not root.has(reference)


@pytest.mark.parametrize(
    "reference", ["../out.jpg", "a/../../out.jpg", "..\\out.jpg", "/etc/passwd", "C:\\out.jpg"]
)
def test_a_path_out_of_the_root_is_refused(tmp_path: Path, reference: str) -> None:
    (tmp_path / "out.jpg").write_bytes(b"secret")
    root = pictures(tmp_path / "images", "a.jpg")
    with pytest.raises(BadInput) as error:
        root.find(reference)
    check_one_sentence(error, ascii(reference), root.folder)


@pytest.mark.parametrize("reference", ["link.jpg", "folder/out.jpg"])
def test_a_link_out_of_the_root_is_refused(tmp_path: Path, reference: str) -> None:
    root = pictures(tmp_path / "images", "a.jpg")
    pictures(tmp_path / "outside", "out.jpg")
    (tmp_path / "images" / "link.jpg").symlink_to(tmp_path / "outside" / "out.jpg")
    (tmp_path / "images" / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(BadInput, match="leads out of"):
        root.find(reference)


def test_links_inside_the_root_and_the_root_itself_as_a_link_are_fine(tmp_path: Path) -> None:
    pictures(tmp_path / "real", "a.jpg")
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "root").symlink_to("real")
    assert ImageRoot(tmp_path / "root").find("b.jpg").read() == b"picture"


def test_a_reference_may_climb_within_the_data_root(tmp_path: Path) -> None:
    pictures(tmp_path, "coco/a.jpg", "llava/b.jpg")
    root = ImageRoot(tmp_path / "llava", tmp_path)
    assert root.find("../coco/a.jpg").read() == b"picture"


def test_a_copy_finds_the_same(tmp_path: Path) -> None:
    root = pictures(tmp_path, "a.jpg")
    assert pickle.loads(pickle.dumps(root)).find("a.jpg") == root.find("a.jpg")


@pytest.mark.parametrize(("stored", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_found_composed_or_decomposed(tmp_path: Path, stored: str, asked: str) -> None:
    name = "Bücher/Café été.jpg"
    root = pictures(tmp_path, unicodedata.normalize(stored, name))
    found = root.find(unicodedata.normalize(asked, name))
    assert found.read() == b"picture"
    # Another extension, and a folder less, are found in the other spelling too.
    assert root.find(unicodedata.normalize(asked, "x/Bücher/Café été.png")).read() == b"picture"
    with pytest.raises(MissingImage):
        root.find(unicodedata.normalize(asked, "Bücher/Cafe été.jpg"))


def test_a_missing_image_tells_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingImage) as error:
        pictures(tmp_path, "a.jpg").find("x\\b.jpg")
    assert error.value.looked_for == f"{tmp_path.resolve()}/x/b.jpg"
    copy = pickle.loads(pickle.dumps(error.value))
    assert (copy.reference, copy.looked_for) == ("x\\b.jpg", error.value.looked_for)
