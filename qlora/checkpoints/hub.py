"""What a person typed for a checkpoint becomes a path on this machine.

Contract: `resolve` takes a local path, a Hugging Face id or an address, and downloads only when the
reference is one of the latter two. Downloads go through huggingface_hub, its cache, its progress
bars and its settings (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, the login); a file is never returned
half. Every failure is one `BadInput`.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub import (
    cached_assets_path,
    constants,
    get_session,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import http_get
from huggingface_hub.utils import WeakFileLock

from lite.errors import BadInput

SMALL_FILES = ("*.json", "tokenizer*", "*.model")
# Per weight format, best first: a repository often holds the same weights in several.
_WEIGHTS = (("*.safetensors",), ("*.bin",), ("*.pt", "*.pth"))

_HUB_ID = re.compile(
    r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/@\s]+))?"
    r"(?:/(?P<file>[^\s\\]+))?"
)
_HUB_PAGE = re.compile(
    r"/(?P<repo>[\w.-]+/[\w.-]+)"
    r"(?:/(?:resolve|blob|raw|tree)/(?P<revision>refs/(?:pr|convert)/[\w.-]+|[^/]+)"
    r"(?:/(?P<file>.+))?)?/?"
)
_FILE_NAME = re.compile(r"\.(pt|pth|bin|ckpt|safetensors|json)$", re.IGNORECASE)
# First path components of Hugging Face pages that are not organisations.
_NOT_MODELS = ("datasets", "spaces", "api", "docs", "papers")


def resolve(reference: str, kind: str, *, patterns: Sequence[str] | None = None) -> Path:
    """The local path of a checkpoint; an existing path is returned as it is.

    `reference` may also be `org/name[@revision]` (a folder), `org/name[@revision]/path/to/file`, a
    page of the hub, or any http(s) address of a file. `kind` names the thing in messages, such as
    `"llama"` for `--llama`. `patterns` are the files wanted of a folder; by default configuration,
    tokenizer and one format of weights, safetensors before `.bin` before `.pt`.

    Raises `BadInput` when the reference is none of these or cannot be had.
    """
    if _exists(reference):
        return Path(reference)
    what = f"--{kind} {reference}"
    try:
        if re.match(r"https?://", reference):
            hub = _hub_page(reference)
            return _hub(*hub, patterns) if hub else _address(reference)
        match = _HUB_ID.fullmatch(reference)
        if match is None or _meant_as_path(match):
            raise BadInput(
                f"{what} is neither a path here, nor a hub id (org/name or org/name/file), nor an "
                "http(s) address: check the spelling."
            )
        if Path(folder := match["repo"].split("/")[0]).is_dir():
            # A mistyped path must not become the download of a stranger's repository.
            raise BadInput(
                f"{what} is not in the folder {folder} here: check the path, or give "
                f"{constants.ENDPOINT}/{match['repo']} to download."
            )
        return _hub(match["repo"], match["revision"], match["file"], patterns)
    except (HTTPError, HFValidationError, EntryNotFoundError, OSError, ValueError) as error:
        raise BadInput(f"{what} {_reason(error)}.") from error


def _exists(reference: str) -> bool:
    try:
        return bool(reference) and Path(reference).exists()
    except (OSError, ValueError):  # too long for a name, or a NUL byte
        return False


def _meant_as_path(match: re.Match[str]) -> bool:
    """`../llama`, or `weights/lora.pt`: a repository is not called like a file."""
    parts = match[0].split("/")
    return "." in parts or ".." in parts or (len(parts) == 2 and bool(_FILE_NAME.search(parts[1])))


def _hub_page(address: str) -> tuple[str, str | None, str | None] | None:
    """Repository, revision and file that an address of the hub names; None for any other."""
    url = urlsplit(address)
    hosts = {urlsplit(constants.ENDPOINT).netloc, "huggingface.co", "hf.co"}
    match = _HUB_PAGE.fullmatch(unquote(url.path))
    if url.netloc not in hosts or match is None or match["repo"].split("/")[0] in _NOT_MODELS:
        return None
    return match["repo"], match["revision"], match["file"]


def _hub(repo: str, revision: str | None, file: str | None, patterns: Sequence[str] | None) -> Path:
    if file is not None:
        return Path(hf_hub_download(repo, file, revision=revision))
    if patterns is not None:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    for weights in _WEIGHTS:
        # Subfolders hold other formats of the same weights, such as original/ and onnx/.
        snapshot = snapshot_download(
            repo,
            revision=revision,
            allow_patterns=[*SMALL_FILES, *weights],
            ignore_patterns=["*/*"],
        )
        if any(any(Path(snapshot).glob(pattern)) for pattern in weights):
            return Path(snapshot)
    if constants.HF_HUB_OFFLINE:
        raise OfflineModeIsEnabled
    raise ValueError("holds no .safetensors, .bin or .pt: name one file of it as org/name/file")


def _address(address: str) -> Path:
    """Download any other address into huggingface_hub's assets cache, once.

    What a cut download left is gone on with only when the server vouches, by ETag or date, that
    the file is still the same one.
    """
    key = hashlib.sha256(address.encode()).hexdigest()
    folder = cached_assets_path("mmgpt-lite", "addresses", key)
    name = re.sub(r"[^\w.-]", "_", unquote(urlsplit(address).path).rsplit("/", 1)[-1])
    # No leading dot: those names are for the lock and the part.
    final = folder / (name.lstrip(".")[-100:] or "file")
    if final.exists():
        return final
    # Without identity the sizes would be those of a compressed transfer.
    headers = {"Accept-Encoding": "identity"}
    with WeakFileLock(folder / ".lock"):
        if final.exists():  # another process was faster
            return final
        head = get_session().head(address, headers=headers, follow_redirects=True, timeout=30)
        seen = head.headers if head.is_success else {}  # some servers answer GET only
        if seen.get("Content-Type", "").startswith("text/html"):
            raise ValueError("is a web page and not a file: give the address of the file itself")
        version = seen.get("ETag") or seen.get("Last-Modified") or ""
        size = int(seen["Content-Length"]) if seen.get("Content-Length", "").isdigit() else None
        part = folder / f".{hashlib.sha256(version.encode()).hexdigest()[:16]}.incomplete"
        if version and not version.startswith("W/"):
            headers["If-Range"] = version
        else:
            part.unlink(missing_ok=True)
        if part.exists() and size is not None and part.stat().st_size > size:
            part.unlink()
        try:
            with part.open("ab") as file:
                http_get(
                    address,
                    file,
                    resume_size=file.tell(),
                    headers=headers,
                    expected_size=size,
                    displayed_filename=final.name,
                )
        except HfHubHTTPError as error:
            if error.response.status_code == 416:  # nothing is left to send: sizes disagree
                part.unlink()
            raise
        part.replace(final)
    return final


def _reason(error: Exception) -> str:
    """What went wrong and what to do next, to follow the reference in a sentence."""
    if isinstance(error, GatedRepoError):
        return (
            "is a gated repository: ask for access on its page at huggingface.co, then log in "
            "with `hf auth login`"
        )
    if isinstance(error, RepositoryNotFoundError):
        return (
            "is no path here, and the hub shows no such repository: check the spelling, or log in "
            "with `hf auth login` if it is private"
        )
    if isinstance(error, RevisionNotFoundError):
        return "names a revision that its repository does not have: check what follows the @"
    if constants.HF_HUB_OFFLINE and isinstance(error, LocalEntryNotFoundError | ConnectionError):
        return "is not in the cache and HF_HUB_OFFLINE is set: unset it to download"
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return "could not be reached and is not in the cache: check the connection and try again"
    if isinstance(error, EntryNotFoundError):
        return "names no file that its repository has: check the path on its page"
    if isinstance(error, HFValidationError):
        return "is neither a path here nor a valid hub id: check the spelling"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"cannot be downloaded (the server answered {status}): check it, or try again later"
    if isinstance(error, HTTPError):
        return f"could not be downloaded ({type(error).__name__}): check the connection, try again"
    if isinstance(error, ValueError):
        return " ".join(str(error).split()).rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be stored ({error.strerror}): check the disk that holds {constants.HF_HOME}"
    return "arrived in another size than the server announced: try again"
