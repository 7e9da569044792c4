"""The tests' folders are the packages' folders, and each file is named after what it tests."""

from pathlib import Path

TESTS = Path(__file__).parent
ROOT = TESTS.parent
WHOLE = {
    "test_layout.py": "these folders",
    "test_package.py": "what is built and installed",
    "test_reference.py": "the chain from checkpoint to answer, against the reference",
}


def is_named_after_its_subject(test: Path) -> bool:
    """`test_a_b.py` tests the file a_b or a, the folder a_b or a, or its own folder as a whole."""
    folder = ROOT / test.parent.relative_to(TESTS)
    words = test.stem.removeprefix("test_").split("_")
    names = {"_".join(words[:count]) for count in range(1, len(words) + 1)}
    there = {path.name.partition(".")[0] for path in folder.iterdir()} if folder.is_dir() else set()
    return bool(names & (there | {folder.name}))


def test_each_test_file_is_named_after_a_module_or_a_folder() -> None:
    files = [path for path in TESTS.rglob("test_*.py") if path.name not in WHOLE]
    assert len(files) > 90
    assert [path for path in files if not is_named_after_its_subject(path)] == []
