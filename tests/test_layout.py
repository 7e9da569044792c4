"""The tests' folders are the packages' folders, and each file is named after what it tests."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
WHOLE = {
    "lite/test_rooms.py": "which room imports which",
    "lite/test_telemetry.py": "what leaves the machine",
    "lite/bundle/test_earlier.py": "bundles of earlier formats",
    "test_layout.py": "these folders",
    "test_package.py": "what is built and installed",
    "test_reference.py": "the chain from checkpoint to answer, against the reference",
}


def is_named_after_its_subject(test: Path) -> bool:
    """`test_a_b.py` tests the file a_b or a, the folder a_b or a, or its own folder as a whole.

    Folders without Python (the web page, the documentation) are tested as readers see them.
    """
    folder = ROOT / test.parent.relative_to(TESTS)
    if not folder.is_dir():
        return False
    if not any(folder.glob("*.py")) and folder != ROOT:
        return True
    words = test.stem.removeprefix("test_").split("_")
    names = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
    return bool(names & {folder.name, *(path.stem for path in folder.iterdir())})


def test_each_test_file_is_named_after_a_module_or_a_folder() -> None:
    files = {str(path.relative_to(TESTS)): path for path in TESTS.rglob("test_*.py")}
    assert files.keys() >= WHOLE.keys()
    assert [
        name
        for name, path in files.items()
        if name not in WHOLE and not is_named_after_its_subject(path)
    ] == []
