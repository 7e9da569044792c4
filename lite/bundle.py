"""The bundle: an exported folder, opened with every claim in its manifest checked.

Contract: nothing of a bundle is used before its size and sha256 were compared with the manifest,
and no path leads out of the folder: the manifest lists plain file names, links are refused, and the
graphs may keep their weights only in listed files. `lite` asks the manifest what a model can do,
never its name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lite import attend
from lite.errors import BadInput
from lite.external_data import external_locations
from lite.images import Preprocessing
from lite.userdirs import cache_dir

FORMAT = "mmgpt-lite bundle"
VERSION = 1
MANIFEST = "manifest.json"
VISION, DECODER, TOKENIZER = "vision.onnx", "decoder.onnx", "tokenizer.json"
REQUIRED = (VISION, DECODER, TOKENIZER)
# Files up to this many bytes are hashed at each opening (a few hundredths of a second); larger ones
# once, and again when their size or time of change differs.
ALWAYS_HASHED = 1 << 26
CHUNK = 1 << 20
# Ids are int32 at the narrowest place they pass through.
MAX_ID = 1 << 31


@dataclass(frozen=True)
class Sizes:
    """What the runtime must know to allocate and to feed the graphs.

    Attributes:
        layers, kv_heads, head_dim: the KV cache is `[layers, 2, kv_heads, context, head_dim]`.
        context: positions that the model can hold.
        vocab: width of the logits.
        blocks, visual_heads, latents, visual_head_dim: visual memory of one image is
            `[blocks, 2, visual_heads, latents, visual_head_dim]`.
        parameters: of the whole model.
    """

    layers: int
    kv_heads: int
    head_dim: int
    context: int
    vocab: int
    blocks: int
    visual_heads: int
    latents: int
    visual_head_dim: int
    parameters: int

    @property
    def memory_shape(self) -> tuple[int, int, int, int, int]:
        """Shape of one image's visual memory."""
        return (self.blocks, 2, self.visual_heads, self.latents, self.visual_head_dim)


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and sha256 (hexadecimal) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What `manifest.json` says.

    Attributes:
        sizes: see `Sizes`.
        attend: the attend rule.
        template: name of the prompt template.
        special_ids: ids of special tokens by name.
        preprocessing: how images become pixels.
        precision: per graph.
        files: record of every file but the manifest.
        proofs: the chain of proofs that `lite-export` printed for this bundle.
    """

    sizes: Sizes
    attend: str
    template: str
    special_ids: dict[str, int]
    preprocessing: Preprocessing
    precision: dict[str, str]
    files: dict[str, FileRecord]
    proofs: list[dict[str, Any]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The manifest as `from_json` reads it."""
        data = {"format": FORMAT, "version": VERSION, **asdict(self)}
        data["preprocessing"] = self.preprocessing.to_json()
        return data

    @classmethod
    def from_json(cls, data: Any, where: Path) -> Manifest:
        """Check and read a parsed manifest.

        Raises:
            BadInput: it is none, is of another version, or lacks something.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BadInput(f"{where} is not a bundle's manifest; make a bundle with lite-export.")
        if data.get("version") != VERSION:
            raise BadInput(
                f"{where} is of version {data.get('version')!r} and this program reads version "
                f"{VERSION}; export the bundle again or install the matching release."
            )
        body = {key: value for key, value in data.items() if key not in ("format", "version")}
        try:
            manifest = cls(
                sizes=Sizes(**body.pop("sizes")),
                preprocessing=Preprocessing.from_json(body.pop("preprocessing")),
                files={str(n): FileRecord(**r) for n, r in body.pop("files").items()},
                **body,
            )
            manifest._check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BadInput(
                f"{where} is damaged or incomplete ({error}); export the bundle again."
            ) from None
        return manifest

    def _check(self) -> None:
        if self.attend not in attend.RULES:
            raise ValueError(f"unknown attend rule {self.attend!r}")
        for name, value in asdict(self.sizes).items():
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}")
        if type(self.template) is not str:
            raise ValueError(f"the template is {self.template!r}")
        for token in ("<s>", "</s>", "<image>", *self.special_ids):
            value = self.special_ids[token]
            if not token or type(value) is not int or not 0 <= value < MAX_ID:
                raise ValueError(f"the id of {token!r} is {value!r}")
        for name in REQUIRED:
            if name not in self.files:
                raise KeyError(name)
        for name, record in self.files.items():
            if Path(name).name != name or name in ("", ".", "..") or set(name) & {"\\", "\0"}:
                raise ValueError(f"the file name {name!r} is not a plain name")
            if type(record.size) is not int or record.size < 0:
                raise ValueError(f"the size of {name} is {record.size!r}")


class Bundle:
    """An opened bundle: a manifest and a folder whose files match it."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, folder: str | Path, hashing: Callable[[str], None] = lambda name: None) -> Bundle:
        """Open and check a bundle.

        Args:
            folder: the bundle.
            hashing: called with the name of each large file that is about to be hashed.

        Raises:
            BadInput: anything is missing, truncated, altered, or would lead out of the folder.
        """
        folder = Path(folder)
        try:
            manifest = read_manifest(folder)
            for name, record in manifest.files.items():
                _check_file(folder / name, record, hashing)
            for graph in (VISION, DECODER):
                _check_locations(folder / graph, manifest.files)
        except OSError as error:
            raise BadInput(
                f"{error.filename or folder} cannot be read ({error.strerror}); "
                f"check the path and who may read it."
            ) from None
        return cls(folder, manifest)

    def path(self, name: str) -> Path:
        """The path of one of its files."""
        return self.folder / name

    @property
    def digest(self) -> str:
        """sha256 over the manifest without its proofs: bundles of one digest are the same model.

        The files alone do not tell: one graph serves both attend rules.
        """
        claims = {key: value for key, value in self.manifest.to_json().items() if key != "proofs"}
        return hashlib.sha256(json.dumps(claims, sort_keys=True).encode()).hexdigest()

    @property
    def vision_digest(self) -> str:
        """The same over all that the visual memory of an image depends on."""
        parts: dict[str, Any] = {
            name: record.sha256
            for name, record in sorted(self.manifest.files.items())
            if name.startswith(VISION)
        }
        parts["preprocessing"] = self.manifest.preprocessing.to_json()
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a bundle folder; its files are not looked at.

    Raises:
        BadInput: there is no folder, no manifest, or not a valid one.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise BadInput(
            f"There is no bundle folder {folder}; give the folder that lite-export wrote."
        )
    if not path.is_file():
        raise BadInput(
            f"{folder} has no {MANIFEST}, so it is not a bundle; "
            f"give the folder that lite-export wrote."
        )
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(
            f"{path} is damaged or incomplete ({error}); export the bundle again."
        ) from None
    return Manifest.from_json(data, path)


def file_record(path: Path) -> FileRecord:
    """Size and sha256 of a file."""
    sha = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            sha.update(chunk)
    return FileRecord(path.stat().st_size, sha.hexdigest())


def _check_file(path: Path, record: FileRecord, hashing: Callable[[str], None]) -> None:
    if path.is_symlink():
        raise BadInput(f"{path} is a link, which a bundle may not hold; copy the file itself.")
    if not path.is_file():
        raise BadInput(f"The bundle lacks {path}; export or copy it again.")
    size = path.stat().st_size
    if size != record.size:
        raise BadInput(
            f"{path} has {size} bytes instead of {record.size}, so it is truncated or altered; "
            f"export or copy the bundle again."
        )
    remembered = _Remembered(path, record)
    if size > ALWAYS_HASHED:
        if remembered.known():
            return
        hashing(path.name)
    if file_record(path) != record:
        raise BadInput(
            f"The sha256 of {path} does not match the manifest, so it was damaged or altered; "
            f"export or copy the bundle again."
        )
    if size > ALWAYS_HASHED:
        remembered.remember()


class _Remembered:
    """A note in the user's cache that a large file had its right hash, while it is unchanged."""

    def __init__(self, path: Path, record: FileRecord) -> None:
        stat = path.stat()
        stamp = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino} {record.sha256}"
        self._note = cache_dir("verified") / hashlib.sha256(stamp.encode()).hexdigest()

    def known(self) -> bool:
        try:
            return self._note.is_file()
        except OSError:  # a cache that cannot be read is as good as none
            return False

    def remember(self) -> None:
        try:
            self._note.parent.mkdir(parents=True, exist_ok=True)
            self._note.touch()
        except OSError:
            pass  # a cache that cannot be written costs time at the next opening, nothing else


def _check_locations(graph: Path, files: Mapping[str, FileRecord]) -> None:
    for location in external_locations(graph):
        if location not in files:
            raise BadInput(
                f"{graph} keeps weights in {location!r}, which is not a file of this bundle; "
                f"do not use it, and export the bundle again."
            )
