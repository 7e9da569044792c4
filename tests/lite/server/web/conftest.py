"""The web page's tests: a server with a real model, and a real browser in front of it."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from export.bundle import write_bundle
from export.precision import precision
from lite import demo
from qlora.families.flamingo import read_flamingo
from qlora.tiny.model import TinySizes, write_checkpoints
from tests.lite.server.conftest import serving
from tests.lite.server.web.page import ChatPage
from tests.lite.server.web.scenes import draw_hills

CONTEXT = 1 << 14  # an answer that fills it takes seconds, so that it can be stopped
SIZES = TinySizes(context=CONTEXT, layers=4, interval=2, vocabulary=943)
SEED = 37  # with these sizes, nonsense that is pleasant to look at
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="package")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("web")
    made = write_checkpoints(folder, SIZES, SEED)
    weights = read_flamingo(Path(made.llama), made.clip, made.clip_weights, Path(made.flamingo))
    write_bundle(weights, folder / "tiny", precision("fp32"), lambda bundle: [])
    return folder / "tiny"


@pytest.fixture(scope="package")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is pleasant to look at, larger than its thumbnail."""
    path = tmp_path_factory.mktemp("pictures") / "hills.png"
    draw_hills(path)
    return path


@pytest.fixture(scope="package")
def start(bundle: Path) -> Iterator[Callable[..., str]]:
    """`start(**settings)`: the address of a server with a model of its own."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serving(bundle, **settings)).url + "/"


@pytest.fixture(scope="package")
def address(start: Callable[..., str]) -> str:
    return start()


@pytest.fixture(scope="package")
def demo_address() -> Iterator[str]:
    """A server of the demo model."""
    with serving(demo.FOLDER) as served:
        yield served.url + "/"


@pytest.fixture(scope="module")  # its event loop runs as long as it does, and others need their own
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium is installed here")
    with playwright.sync_playwright() as running:
        chromium = running.chromium.launch(executable_path=path, args=[*QUIET])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, address: str) -> Iterator[Callable[..., ChatPage]]:
    """`open_page(url, settings=..., **context)`: the page in a browser that has never seen it.

    When the test is over, each of them must have loaded from its server only, and without an
    error in the console.
    """
    opened: list[ChatPage] = []

    def open_one(url: str = address, **options: Any) -> ChatPage:
        opened.append(ChatPage(browser, url, **options))
        return opened[-1]

    yield open_one
    for page in opened:
        page.close()


@pytest.fixture
def page(open_page: Callable[..., ChatPage]) -> ChatPage:
    return open_page()
