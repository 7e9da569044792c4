"""The bundle's manifest: what a model is and which files belong to it.

Contract: what `read_manifest` returns was checked field by field, so that the rest of the program
can trust it; an unknown field, version or value is one sentence. The files themselves are checked
by `lite.bundle.bundle`.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from lite.bundle import attend
from lite.bundle.injection import GATED, INJECTIONS, Injection
from lite.errors import BadInput
from lite.image.preprocessing import Preprocessing
from lite.text.template import TEMPLATES, Template, template

FORMAT = "mmgpt-lite bundle"
VERSION = 2
# Version 1 named the template, of those that the program knew.
READ_VERSIONS = (1, VERSION)
MANIFEST = "manifest.json"
VISION, DECODER, TOKENIZER = "vision.onnx", "decoder.onnx", "tokenizer.json"
REQUIRED = (VISION, DECODER, TOKENIZER)
# Ids are int32 where they are narrowest.
MAX_ID = 1 << 31
# Of any size: no array of so many bytes can be made, nor has a model so many parameters.
MAX_SIZE = 1 << 48
# Characters of a name.
MAX_NAME = 200
SHA256 = re.compile("[0-9a-f]{64}")
# What `precision` must say.
NO_PRECISION = {"vision": None, "decoder": None}


@dataclass(frozen=True)
class Sizes:
    """What the runtime must know to allocate and to feed the graphs.

    Attributes:
        layers, kv_heads, head_dim: the KV cache is `[layers, 2, kv_heads, context, head_dim]`.
        context: positions that the model can hold.
        vocab: width of the logits.
        latents: visual tokens of one image.
        blocks, visual_heads, visual_head_dim: the features of one image are
            `[blocks, 2, visual_heads, latents, visual_head_dim]`, with heads of keys and values;
            or, of a decoder without gated blocks (0 and 0), `[latents, visual_head_dim]`.
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
    def feature_shape(self) -> tuple[int, ...]:
        """Shape of the features of one image; its last axis but one is that of the latents."""
        of_block = (self.latents, self.visual_head_dim)
        return (self.blocks, 2, self.visual_heads, *of_block) if self.blocks else of_block


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
        template: the prompt template.
        special_ids: ids of special tokens by name.
        preprocessing: how images become pixels.
        precision: of each graph's weights, and of `activations` and `kv_cache` where it says so.
        files: record of every file but the manifest.
        proofs: the chain of proofs that `lite-export` printed for this bundle.
        family: what people call models of this kind; nothing depends on it.
        encoder, connector: what makes the visual tokens, for people too.
        injection: how they enter the decoder, see `lite.bundle.injection`.
    """

    sizes: Sizes
    attend: str
    template: Template
    special_ids: dict[str, int]
    preprocessing: Preprocessing
    precision: dict[str, str]
    files: dict[str, FileRecord]
    proofs: list[dict[str, Any]] = field(default_factory=list)
    # Bundles that do not say are older than the choice.
    family: str = "mmgpt"
    encoder: str = "clip"
    connector: str = "perceiver"
    injection: str = GATED

    @property
    def injected(self) -> Injection:
        """The injection with its numbers."""
        image = self.special_ids["<image>"]
        return Injection.from_name(self.injection, image, self.sizes.latents, self.attend)

    @property
    def activations(self) -> str:
        """What flows between the layers: `fp32` or `fp16`."""
        return self.precision.get("activations", "fp32")

    def to_json(self) -> dict[str, Any]:
        """The manifest as `from_json` reads it."""
        data = {"format": FORMAT, "version": VERSION, **asdict(self)}
        data["preprocessing"] = self.preprocessing.to_json()
        data["template"] = self.template.to_json()
        return data

    @property
    def claims(self) -> dict[str, Any]:
        """What makes a model this one and no other, as its digest takes it.

        Written as in version 1, so that sessions of then belong to the same model: without the
        proofs, and with a known template by its name.
        """
        data = self.to_json() | {"version": 1}
        del data["proofs"]
        if self.template == TEMPLATES.get(self.template.name):
            data["template"] = self.template.name
        return data

    @classmethod
    def from_json(cls, data: Any, where: Path) -> Manifest:
        """Check and read a parsed manifest.

        Raises:
            BadInput: it is none, is of another version, or lacks something.
        """
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BadInput(f"{where} is not a bundle's manifest; make a bundle with lite-export.")
        version = data.get("version")
        if type(version) is not int or version not in READ_VERSIONS:
            raise BadInput(
                f"{where} is of version {version!r} and this program reads versions "
                f"{' and '.join(map(str, READ_VERSIONS))}; "
                f"export the bundle again or install the matching release."
            )
        body = {key: value for key, value in data.items() if key not in ("format", "version")}
        try:
            _check_names(cls, body, "the manifest")
            for name in ("files", "special_ids", "precision"):
                if type(body[name]) is not dict:
                    raise ValueError(f"{name} is {_short(body[name])}")
            manifest = cls(
                sizes=_record(Sizes, body.pop("sizes"), "sizes"),
                preprocessing=Preprocessing.from_json(body.pop("preprocessing")),
                template=_template(body.pop("template"), version),
                files={n: _record(FileRecord, r, n) for n, r in body.pop("files").items()},
                **body,
            )
            manifest._check()
        except (KeyError, ValueError) as error:
            raise BadInput(
                f"{where} is damaged or incomplete ({error}); export the bundle again."
            ) from None
        return manifest

    def _check(self) -> None:
        for name in ("injection", "attend", "family", "encoder", "connector"):
            value = getattr(self, name)
            if type(value) is not str or len(value) > MAX_NAME:
                raise ValueError(f"the {name} is {_short(value)}")
        if self.injection not in INJECTIONS:
            raise ValueError(f"unknown injection {self.injection!r}")
        if self.attend not in (attend.GATED_RULES if self.injection == GATED else (attend.OWN,)):
            raise ValueError(f"unknown attend rule {self.attend!r}")
        blockless = () if self.injection == GATED else ("blocks", "visual_heads")
        for name, value in asdict(self.sizes).items():
            least, most = (0, 0) if name in blockless else (1, MAX_SIZE)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name} is {_short(value)}")
        for name, value in {**NO_PRECISION, **self.precision}.items():
            if type(value) is not str or not 0 < len(value) <= MAX_NAME:
                raise ValueError(f"the precision of {name} is {_short(value)}")
        if type(self.proofs) is not list or any(type(proof) is not dict for proof in self.proofs):
            raise ValueError(f"proofs is {_short(self.proofs)}")
        for token in ("<s>", "</s>", *self.template.specials, *self.special_ids):
            value = self.special_ids[token]
            if not token or type(value) is not int or not 0 <= value < MAX_ID:
                raise ValueError(f"the id of {token!r} is {_short(value)}")
        for name in REQUIRED:
            if name not in self.files:
                raise KeyError(name)
        for name, record in self.files.items():
            if Path(name).name != name or name in ("", ".", "..") or set(name) & {"\\", "\0"}:
                raise ValueError(f"the file name {name!r} is not a plain name")
            if type(record.size) is not int or record.size < 0:
                raise ValueError(f"the size of {name} is {_short(record.size)}")
            if type(record.sha256) is not str or not SHA256.fullmatch(record.sha256):
                raise ValueError(f"the sha256 of {name} is {_short(record.sha256)}")


Record = TypeVar("Record", Sizes, FileRecord)


def _record(kind: type[Record], data: Any, what: str) -> Record:
    if type(data) is not dict:
        raise ValueError(f"{what} is {_short(data)}")
    _check_names(kind, data, what)
    return kind(**data)


def _check_names(kind: type, data: dict[str, Any], what: str) -> None:
    """The fields of a dataclass, all that have no default and no others."""
    known = {one.name: one for one in fields(kind)}
    needed = {
        name
        for name, one in known.items()
        if one.default is MISSING and one.default_factory is MISSING
    }
    if lacking := sorted(needed - data.keys()):
        raise ValueError(f"{what} lacks {lacking[0]!r}")
    if unknown := sorted(data.keys() - known.keys()):
        raise ValueError(f"{what} has an unknown {unknown[0]!r}")


def _short(value: Any) -> str:
    return repr(value)[:80]


def _template(data: Any, version: int) -> Template:
    if version > 1:
        return Template.from_json(data)
    if type(data) is not str:
        raise ValueError(f"the template is {data!r}")
    return template(data)


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a bundle folder; its files are not opened.

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
