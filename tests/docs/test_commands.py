"""Every command of README and documentation runs, or at least says what the command accepts.

A block of `sh` or `python` is run, unless a comment before it says why it cannot be:
`<!-- not run: REASON -->` leaves it at its options, `<!-- slow -->` runs it with `-m slow`.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import click
import pytest

from lite.commands import cache, chat
from qlora.recipes.reading import read_recipe

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
MODULES = {
    "lite-chat": "lite.commands.chat",
    "lite-serve": "lite.commands.serve",
    "qlora-train": "qlora.commands.train",
    "lite-export": "export.commands.export",
    "lite-bench": "bench.commands.bench",
}
# Programs that are not ours: what they accept is not for this test to know.
FOREIGN = {
    *(
        "pip",
        "python",
        "python3",
        "docker",
        "systemctl",
        "cat",
        "cd",
        "cp",
        "echo",
        "install",
        "printf",
        "git",
    ),
    *("pre-commit", "npm", "npx", "ruff", "mypy", "twine", "run"),
}
BLOCK = re.compile(
    r"^(?:<!-- (?P<mark>[^>]*) -->\n)?```(?P<kind>sh|python)\n(?P<text>.*?)^```", re.M | re.S
)
# A first-token answer takes a second; the slowest block trains and exports a small model.
SECONDS = 280
SLOW_SECONDS = 1200


@dataclass(frozen=True)
class Block:
    """Commands or a program, as a page shows them."""

    page: str
    kind: str
    mark: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run: ")

    @property
    def installs(self) -> bool:
        return self.text.startswith("python3 -m venv")

    @property
    def serves(self) -> bool:
        return self.text.startswith("lite-serve")


def blocks() -> list[Block]:
    """The blocks of all pages; those that stand on several pages once."""
    found = {}
    for page in PAGES:
        for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
            block = Block(
                str(page.relative_to(ROOT)), match["kind"], match["mark"] or "", match["text"]
            )
            found.setdefault(block.text, block)
    return list(found.values())


BLOCKS = blocks()


def parameters(chosen: list[Block]) -> list[object]:
    return [
        pytest.param(
            block,
            id=f"{block.page.replace(os.sep, '-')}-{block.text.split()[0]}-{at}",
            marks=[pytest.mark.slow, pytest.mark.timeout(2 * SLOW_SECONDS)]
            if block.mark == "slow"
            else [],
        )
        for at, block in enumerate(chosen)
    ]


def simple_commands(text: str) -> list[list[str]]:
    """The words of each command of a script, without redirections and comments."""
    commands = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars=True)
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in [*words, ";"]:
            if word in ("&&", "|", ";"):
                commands += [without_redirections(command)] if command else []
                command = []
            else:
                command.append(word)
    return commands


def without_redirections(words: list[str]) -> list[str]:
    kept = [
        word
        for at, word in enumerate(words)
        if word not in "<>" and (at == 0 or words[at - 1] not in "<>")
    ]
    while kept and re.fullmatch(r"[A-Z_]+=.*|sudo", kept[0]):
        del kept[0]
    return kept


def check(words: list[str]) -> None:
    """Fail where one of our commands would not accept what it is given."""
    name = Path(words[0]).name
    if "launch" in words or words[:2] == ["python", "-m"]:
        at = words.index("-m") + 1
        module, words = words[at], words[at:]
        if module in ("pytest", "build", "mkdocs"):
            return
        command = import_module(module).command
    elif name == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        wanted = [word for word in words[1:] if not re.match(r"-|[A-Z]+=", word)]
        assert set(wanted) <= set(targets), words
        return
    elif words[:2] == ["lite-chat", "cache"]:
        command, words = cache.command, words[1:]
    elif name in MODULES:
        command = import_module(MODULES[name]).command
    else:
        assert name in FOREIGN, f"{name} is no program that this test knows"
        return
    values = parsed(command, words[1:])
    if name == "qlora-train":
        settings = values["settings"]
        read_recipe(values["recipe"], settings if isinstance(settings, tuple | list) else ())


def parsed(command: click.Command, words: list[str]) -> dict[str, object]:
    context = click.Context(command)
    if isinstance(command, click.Group):
        part = command.get_command(context, words[0])
        assert part is not None, words
        return parsed(part, words[1:])
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    assert not rest
    for parameter in command.params:
        given = values.get(parameter.name or "")
        if isinstance(given, str | tuple | list) and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, given)
    return values


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the examples, in which our commands are those of this source."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, module in MODULES.items():
        script = programs / name
        script.write_text(f"#!{sys.executable}\nfrom {module} import main\n\nmain()\n")
        script.chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MMGPT_LITE_DATA", str(tmp_path / "data"))
    return tmp_path


def test_the_pages_have_commands_that_run_and_such_that_do_not():
    assert sum(block.runs for block in BLOCKS) >= 8
    assert all(block.mark == "slow" or not block.runs for block in BLOCKS if block.mark)


@pytest.mark.parametrize("block", parameters([b for b in BLOCKS if b.kind == "sh"]))
def test_a_command_accepts_its_options(block):
    for words in simple_commands(block.text):
        check(words)


def test_an_option_that_does_not_exist_is_seen():
    with pytest.raises(click.NoSuchOption):
        check(["lite-chat", "picture.png", "--no-such-option"])
    with pytest.raises(click.BadParameter):
        check(["lite-chat", "--device", "toaster"])
    assert "picture" not in {option for p in chat.command.params for option in p.opts}


RUN = [b for b in BLOCKS if b.runs and not (b.installs or b.serves)]


@pytest.mark.parametrize("block", parameters(RUN))
def test_a_block_runs(block, place):
    shell = ["bash", "-e", "-o", "pipefail", "-c"]
    program = shell if block.kind == "sh" else [sys.executable, "-c"]
    done = subprocess.run(
        [*program, block.text],
        cwd=place,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SLOW_SECONDS if block.mark == "slow" else SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("block", parameters([b for b in BLOCKS if b.runs and b.serves]))
def test_a_server_serves_until_it_is_stopped(block, place):
    command = [*shlex.split(block.text, comments=True), "--port", "0"]
    with subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Serving on http://127.0.0.1:"):
                break
        else:
            pytest.fail("it never served")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130


@pytest.mark.slow
@pytest.mark.timeout(SLOW_SECONDS)
def test_the_first_command_answers_in_a_clone(tmp_path):
    (command,) = (b.text for b in BLOCKS if b.installs and "lite-chat" in b.text)
    clone = tmp_path / "clone"
    shutil.copytree(
        ROOT, clone, ignore=shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build")
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=environment, capture_output=True, text=True
    )
    if "NewConnectionError" in done.stderr or "NameResolutionError" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.stdout == "A tiger says roar.\n", done.stderr
