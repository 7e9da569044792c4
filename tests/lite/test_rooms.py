"""The rooms of the program and the arrows between them: imports point one way.

Imports of types only count too: a room that is described needs the other one to be read.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# From the lowest floor to the highest; rooms of one floor do not know each other.
PACKAGES = [{"lite"}, {"qlora"}, {"export"}, {"bench"}]
ROOMS = [
    {"errors"},
    {"files", "recent", "userdirs"},
    {"image", "text"},
    {"bundle"},
    {"demo", "runtime"},
    {"chat"},
    {"cli"},
    {"terminal", "server"},
    {"commands"},
]
FLOORS = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}
PACKAGE_FLOORS = {name: floor for floor, names in enumerate(PACKAGES) for name in names}


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            # `from lite.chat import session` imports lite.chat.session.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "lite").parts[0].removesuffix(".py")


@pytest.mark.parametrize("package", PACKAGE_FLOORS)
def test_packages_know_only_those_below(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files(package)
        for module in imported(path)
        if PACKAGE_FLOORS.get(module.split(".")[0], 0) > PACKAGE_FLOORS[package]
    ]
    assert not wrong


@pytest.mark.parametrize("name", sorted({room(path) for path in files("lite")} - {"__init__"}))
def test_rooms_of_lite_know_only_those_below(name: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {module}"
        for path in files("lite")
        if room(path) == name
        for module in imported(path)
        if module.startswith("lite.") and (other := module.split(".")[1]) != name
        # What the package itself hands out, such as `lite.load`, is in `lite.chat` or below.
        if FLOORS.get(other, FLOORS["chat"]) >= FLOORS[name]
    ]
    assert not wrong


@pytest.mark.parametrize("package", PACKAGE_FLOORS)
def test_modules_have_no_circles(package: str) -> None:
    """Types included, except where a module says by TYPE_CHECKING that it only describes."""
    paths = files(package)
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in paths}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    above: dict[str, set[str]] = {}
    for name, path in names.items():
        found = {m if m in names else m.rpartition(".")[0] for m in at_import(path)}
        above[name] = found & names.keys() - {name}
    while above:
        lowest = {name for name, needs in above.items() if not needs & above.keys()}
        assert lowest, f"a circle among {sorted(above)}"
        above = {name: needs for name, needs in above.items() if name not in lowest}


def at_import(path: Path) -> Iterator[str]:
    """The modules that are imported when a file is, and not later or for types only."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", ["torch", "transformers", "huggingface_hub", "safetensors"])
def test_the_runtime_needs_no_training_library(module: str) -> None:
    users = [str(p.relative_to(ROOT)) for p in files("lite") if module in heads(p)]
    assert not users


def heads(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}
