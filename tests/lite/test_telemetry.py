"""Nothing of a chat or a server leaves the machine, and no library leaves a trace of its own."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CHAT = ("lite.commands.chat", str(ROOT / "examples" / "farm.png"), "-p", "What is this?")
SERVE = ("lite.commands.serve", "--port", "0")
SERVED_SECONDS = 6
STRACE = shutil.which("strace")


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("XDG_", "MMGPT_", "ORT_"))}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def run(home: Path, *module: str, before: tuple[str, ...] = ()) -> None:
    """Run a program; one that serves is stopped after a while, as by Ctrl-C."""
    line = [*before, sys.executable, "-m", *module]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(line, env=environment(home), start_new_session=True, **quiet) as process:  # type: ignore[call-overload]
        if module == SERVE:
            assert any(b"Serving on" in line for line in process.stderr)
            time.sleep(SERVED_SECONDS)
            os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=200)
    assert process.returncode in ((0, 130) if module == SERVE else (0,)), errors.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX homes")
@pytest.mark.parametrize("module", [CHAT, SERVE], ids=["chat", "serve"])
def test_a_home_holds_only_what_is_ours(module: tuple[str, ...], tmp_path: Path) -> None:
    run(tmp_path, *module)
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in files if "mmgpt-lite" not in path.parts] == []


@pytest.mark.skipif(STRACE is None, reason="system calls are seen by strace")
@pytest.mark.parametrize("module", [CHAT, SERVE], ids=["chat", "serve"])
def test_no_address_outside_is_asked_for(module: tuple[str, ...], tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    trace = (str(STRACE), "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", calls)
    run(tmp_path / "home", *module, before=tuple(map(str, trace)))
    asked = [line for line in calls.read_text().splitlines() if re.search(r"AF_INET6?\b", line)]
    assert asked == []


@pytest.mark.parametrize(
    ("package", "variable"),
    [
        ("lite", "ORT_DISABLE_TELEMETRY"),
        ("bench", "ORT_DISABLE_TELEMETRY"),
        ("export", "ORT_DISABLE_TELEMETRY"),
        ("qlora", "HF_HUB_DISABLE_TELEMETRY"),
        ("export", "HF_HUB_DISABLE_TELEMETRY"),
        ("bench", "HF_HUB_DISABLE_TELEMETRY"),
    ],
)
def test_it_is_off_before_a_library_is_imported(
    package: str, variable: str, tmp_path: Path
) -> None:
    libraries = "onnxruntime", "huggingface_hub", "transformers", "ray"
    code = (
        f"import os, sys, {package}; "
        f"print(os.environ[{variable!r}], *(m for m in {libraries} if m in sys.modules))"
    )
    line = [sys.executable, "-c", code]
    clean = {k: v for k, v in environment(tmp_path).items() if "TELEMETRY" not in k}
    assert subprocess.check_output(line, env=clean, text=True).split() == ["1"]


def test_who_wants_it_may_have_it(tmp_path: Path) -> None:
    code = "import os, lite; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    wanted = {**environment(tmp_path), "ORT_DISABLE_TELEMETRY": "0"}
    assert subprocess.check_output([sys.executable, "-c", code], env=wanted, text=True) == "0\n"
