"""A path, a hub id or an address becomes a local path, or one sentence."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hub_server import COMMIT, HubServer, serve_hub

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB

ASK = """
import json, sys, time
from lite.errors import BadInput
from qlora.checkpoints.hub import resolve
time.sleep = lambda seconds: None  # huggingface_hub's pause before it tries again
for reference in sys.argv[2:]:
    try:
        print(json.dumps(["path", str(resolve(reference, "llama", **json.loads(sys.argv[1])))]))
    except BadInput as error:
        print(json.dumps(["refusal", str(error)]))
"""

FILES = {
    "org/llama/config.json": b"{}",
    "org/llama/tokenizer.model": b"tokens",
    "org/llama/README.md": b"read me",
    "org/llama/model.safetensors": b"new",
    "org/llama/pytorch_model.bin": b"old",
    "org/llama/original/model.safetensors": b"again",
    "org/old-llama/config.json": b"{}",
    "org/old-llama/pytorch_model.bin": b"old",
    "org/flamingo/checkpoint.pt": WEIGHTS,
    "org/flamingo/parts/a.pt": b"part",
    "org/words/README.md": b"only words",
    "v0/files/mmgpt-lora.pt": WEIGHTS,
}


@dataclass
class Bench:
    hub: HubServer
    home: Path

    def ask(
        self, *references: str, options: str = "{}", **environment: str
    ) -> list[tuple[str, str]]:
        answer = self.hub.python(self.home, "-c", ASK, options, *references, **environment)
        # Standard output carries nothing else: progress goes to standard error.
        return [tuple(json.loads(line)) for line in answer.splitlines()]

    def paths(self, *references: str, **environment: str) -> list[Path]:
        answers = self.ask(*references, **environment)
        assert {what for what, _ in answers} == {"path"}, answers
        return [Path(path) for _, path in answers]

    def path(self, reference: str, **environment: str) -> Path:
        return self.paths(reference, **environment)[0]

    def refusals(self, *references: str, **environment: str) -> list[str]:
        answers = self.ask(*references, **environment)
        for reference, (what, message) in zip(references, answers, strict=True):
            assert what == "refusal"
            assert message.startswith(f"--llama {reference} ")
            assert message.endswith(".")
            assert "\n" not in message
        return [message for _, message in answers]

    def refusal(self, reference: str, **environment: str) -> str:
        return self.refusals(reference, **environment)[0]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with serve_hub(dict(FILES)) as hub:
        yield Bench(hub, tmp_path)


@pytest.fixture
def address(bench: Bench) -> str:
    # Another host name than HF_ENDPOINT's, so that this is an address like any other.
    return bench.hub.url.replace("127.0.0.1", "localhost") + "/v0/files/mmgpt-lora.pt"


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_local_path_is_returned_as_it_is_and_asks_no_hub(bench: Bench) -> None:
    (bench.home / "org" / "llama").mkdir(parents=True)
    assert bench.paths("org/llama", str(bench.home)) == [Path("org/llama"), bench.home]
    assert bench.hub.requests == []


def test_a_folder_comes_with_safetensors_and_without_their_duplicates(bench: Bench) -> None:
    folder = bench.path("org/llama")
    assert names(folder) == {"config.json", "tokenizer.model", "model.safetensors"}
    assert (folder / "model.safetensors").read_bytes() == b"new"
    assert names(bench.path("org/old-llama")) == {"config.json", "pytorch_model.bin"}


def test_the_caller_may_say_which_files_of_a_folder(bench: Bench) -> None:
    assert names(bench.path("org/llama", options='{"patterns": ["*.md"]}')) == {"README.md"}


def test_one_file_of_a_repository(bench: Bench) -> None:
    revisions = ("", "@main", f"@{COMMIT}")
    for file in bench.paths(*(f"org/flamingo{revision}/parts/a.pt" for revision in revisions)):
        assert file.read_bytes() == b"part"
    assert bench.hub.gets("checkpoint.pt") == []


def test_a_page_of_the_hub_is_its_file_or_folder(bench: Bench) -> None:
    pages = [f"{bench.hub.url}/org/flamingo/{p}/main/checkpoint.pt" for p in ("resolve", "blob")]
    for file in bench.paths(*pages, pages[0] + "?download=true"):
        assert file.read_bytes() == WEIGHTS
        assert "snapshots" in file.parts
    for folder in bench.paths(*(f"{bench.hub.url}/org/llama{p}" for p in ("", "/", "/tree/main"))):
        assert "model.safetensors" in names(folder)


def test_an_address_is_downloaded_once(bench: Bench, address: str) -> None:
    first = bench.path(address)
    assert first.read_bytes() == WEIGHTS
    assert first.name == "mmgpt-lora.pt"
    assert hashlib.sha256(address.encode()).hexdigest() in first.parts
    assert bench.path(address) == first
    assert bench.hub.gets("mmgpt-lora.pt") == [None]


def test_a_cut_download_goes_on_by_itself(bench: Bench, address: str) -> None:
    # More than one of huggingface_hub's pieces of 10 MiB, of which whole ones count.
    bench.hub.files["v0/files/mmgpt-lora.pt"] = WEIGHTS * 12
    bench.hub.cut_once["mmgpt-lora.pt"] = 11 * 2**20
    assert bench.path(address).read_bytes() == WEIGHTS * 12
    first, second = bench.hub.gets("mmgpt-lora.pt")
    assert first is None
    assert second == f"bytes={10 * 2**20}-"


def cut_for_good(bench: Bench, address: str, size: int = 300_000) -> None:
    """Leave what a process leaves that ends in the middle of a download."""
    bench.path(address).unlink()
    data = bench.hub.files["v0/files/mmgpt-lora.pt"]
    (folder,) = bench.home.glob("hf/assets/mmgpt-lite/addresses/*")
    etag = f'"{hashlib.sha256(data).hexdigest()}"'
    part = folder / f".{hashlib.sha256(etag.encode()).hexdigest()[:16]}.incomplete"
    part.write_bytes(data[:size])
    bench.hub.requests.clear()


def test_a_second_process_goes_on_where_the_first_was_cut(bench: Bench, address: str) -> None:
    cut_for_good(bench, address)
    assert bench.path(address).read_bytes() == WEIGHTS
    assert bench.hub.gets("mmgpt-lora.pt") == ["bytes=300000-"]


def test_a_download_that_was_cut_before_its_renaming_is_not_fetched_again(
    bench: Bench, address: str
) -> None:
    cut_for_good(bench, address, len(WEIGHTS))
    assert bench.path(address).read_bytes() == WEIGHTS
    assert bench.hub.gets("mmgpt-lora.pt") == []


def test_halves_of_two_versions_are_never_joined(bench: Bench, address: str) -> None:
    cut_for_good(bench, address)
    bench.hub.files["v0/files/mmgpt-lora.pt"] = WEIGHTS[::-1]
    assert bench.path(address).read_bytes() == WEIGHTS[::-1]
    assert bench.hub.gets("mmgpt-lora.pt") == [None]


def test_without_a_version_a_download_starts_again(bench: Bench, address: str) -> None:
    bench.hub.validators = False
    cut_for_good(bench, address)
    assert bench.path(address).read_bytes() == WEIGHTS
    assert bench.hub.gets("mmgpt-lora.pt") == [None]


def test_a_failed_download_serves_nothing(bench: Bench, address: str) -> None:
    bench.hub.cut_once["mmgpt-lora.pt"] = 300_000
    bench.hub.status["mmgpt-lora.pt"] = 500
    assert "the server answered 500" in bench.refusal(address)
    assert not list(bench.home.rglob("mmgpt-lora.pt"))
    bench.hub.status.clear()
    assert bench.path(address).read_bytes() == WEIGHTS


def test_what_is_in_the_cache_works_offline(bench: Bench, address: str) -> None:
    references = ["org/llama", "org/old-llama", "org/flamingo/checkpoint.pt", address]
    online = bench.paths(*references)
    bench.hub.requests.clear()
    assert bench.paths(*references, HF_HUB_OFFLINE="1") == online
    assert bench.hub.requests == []
    nobody_listens = "http://127.0.0.1:9"
    assert bench.paths(*references, HF_ENDPOINT=nobody_listens) == online


def test_a_folder_of_which_only_a_file_was_fetched_is_not_served_offline(bench: Bench) -> None:
    bench.path("org/llama/config.json")
    assert "HF_HUB_OFFLINE is set" in bench.refusal("org/llama", HF_HUB_OFFLINE="1")


def test_what_is_not_in_the_cache_is_refused_offline(bench: Bench) -> None:
    references = ["org/llama", "org/llama/config.json", "http://localhost:9/x.pt"]
    for message in bench.refusals(*references, HF_HUB_OFFLINE="1"):
        assert "HF_HUB_OFFLINE is set" in message
    assert bench.hub.requests == []


def test_what_the_hub_does_not_give_is_one_sentence(bench: Bench) -> None:
    bench.hub.files["org/closed/file.pt"] = b"secret"
    bench.hub.gated.add("org/closed")
    wanted = {
        "org/nothing": "is no path here, and the hub shows no such repository",
        "org/nothing/file.pt": "is no path here, and the hub shows no such repository",
        "org/flamingo/missing.pt": "names no file that its repository has",
        "org/llama@v9": "names a revision that its repository does not have",
        "org/words": "holds no .safetensors, .bin or .pt",
        "org/closed/file.pt": "is a gated repository",
        "org/closed": "is a gated repository",
        "org/na--me": "valid hub id",
        "http://localhost:9/x.pt": "check the connection",
    }
    for message, words in zip(bench.refusals(*wanted), wanted.values(), strict=True):
        assert words in message


def test_nonsense_is_neither_path_nor_id_nor_address(bench: Bench) -> None:
    nonsense = ["", "llama", "./org/llama", "../llama", "/no/such/folder", "a b/c", "org/llama/"]
    for message in bench.refusals(*nonsense, "ftp://x/y.pt", "weights/lora.pt", "x" * 5000):
        assert "is neither a path here, nor a hub id" in message
    assert bench.hub.requests == []


def test_an_address_without_a_file_is_one_sentence(bench: Bench, address: str) -> None:
    assert "the server answered 404" in bench.refusal(address + ".zip")
    bench.hub.content_type = "text/html; charset=utf-8"
    assert "is a web page and not a file" in bench.refusal(address)


def test_a_mistyped_path_does_not_become_a_download(bench: Bench) -> None:
    (bench.home / "org").mkdir()
    message = bench.refusal("org/llama")
    assert "is not in the folder org here" in message
    assert f"{bench.hub.url}/org/llama" in message
    assert bench.hub.requests == []
