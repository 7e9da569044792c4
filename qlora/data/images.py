"""Image references of records, resolved below a folder.

Contract: `ImageRoot.find` gives an existing file inside the root or raises; nothing outside the
root is ever named, whether by `..`, by an absolute path or through a link. Folders are listed once,
so that a hundred thousand references cost one look at each folder.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lite.errors import BadInput
from qlora.data.conversation import BadRecord, ImageRef

# LLaVA's recipe saves some images as .jpg whatever they were, other dumps keep their kind.
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".JPG", ".JPEG", ".PNG")
# COCO names one picture 000000000042.jpg since 2017, and COCO_train2014_000000000042.jpg before.
_COCO = re.compile(r"(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg")


class MissingImage(BadRecord):
    """No file answers to a record's image.

    Attributes:
        reference: what the record says.
        looked_for: the first path that was looked for.
    """

    def __init__(self, reference: str, looked_for: str = "") -> None:
        super().__init__("missing image")
        self.reference, self.looked_for = reference, looked_for or reference

    def __reduce__(self) -> Any:
        return type(self), (self.reference, self.looked_for)


class ImageRoot:
    """A folder of images.

    Attributes:
        folder: what references are relative to.
    """

    def __init__(self, folder: Path, root: Path | None = None) -> None:
        """
        Args:
            folder: holds the images; may itself be a link, as whoever configures it may say so.
            root: a folder around it that references may also reach (`../coco/x.jpg`).
        """
        self.folder = Path(folder)
        bounds = [self.folder] if root is None else [self.folder, Path(root)]
        self._bounds = [os.path.realpath(bound) for bound in bounds]
        self._base = self._bounds[0]
        self._listed: dict[str, dict[str, bool]] = {}
        self._spelt: dict[str, dict[str, str]] = {}

    def find(self, reference: str, *alternatives: str) -> ImageRef:
        """The file that a reference means.

        Tried in this order: the path as given; without its leading folders, one after the other;
        COCO's other names for the same picture; all of these with other extensions. A name is
        found whether its accents are composed (NFC) or decomposed (NFD, as macOS writes them).

        Args:
            reference: a path as a record holds it, with `/` or `\\`.
            alternatives: paths to try after it in the same way.

        Raises:
            BadInput: the path leads out of the root.
            MissingImage: there is no such file.
        """
        tried = []
        for path in (reference, *alternatives):
            for candidate in self._candidates(path):
                if found := self._file(candidate):
                    return ImageRef(reference, Path(found))
                tried.append(candidate)
        for candidate in tried:
            stem = os.path.splitext(candidate)[0]  # noqa: PTH122 - a Path for each costs too much
            for suffix in _SUFFIXES:
                if found := self._file(stem + suffix):
                    return ImageRef(reference, Path(found))
        raise MissingImage(reference, tried[0] if tried else "")

    def has(self, reference: str) -> bool:
        """Whether `find` finds it. Raises as `find` for a path that leads out of the root."""
        try:
            self.find(reference)
        except MissingImage:
            return False
        return True

    def _candidates(self, reference: str) -> Iterator[str]:
        """Absolute paths to try, all inside the root by their spelling."""
        given = reference.replace("\\", "/")
        if PureWindowsPath(given).drive:
            raise self._outside(reference)
        path = os.path.normpath(os.path.join(self._base, given))  # noqa: PTH118
        if PurePosixPath(given).is_absolute() and not self._inside(path):
            path = os.path.realpath(path)
        if not self._inside(path):
            raise self._outside(reference)
        if path not in self._bounds:  # a folder; what it would be with an extension is outside
            yield path
        parts = [part for part in given.split("/") if part not in ("", ".", "..")]
        for shorter in (parts[i:] for i in range(1, len(parts))):
            yield "/".join((self._base, *shorter))
        if parts and (match := _COCO.fullmatch(parts[-1])):
            yield from (f"{self._base}/{name}" for name in _coco_names(match[1]))

    def _file(self, path: str) -> str | None:
        """The file at a path, by the name that the disk has for it."""
        if self._is_file(path):
            return path
        if not path.isascii():
            spelt = self._as_spelt(path)
            return spelt if spelt != path and self._is_file(spelt) else None
        return None

    def _as_spelt(self, path: str) -> str:
        """A path below one of the bounds in which each name is composed as it is on the disk."""
        bound = next(bound for bound in self._bounds if path.startswith(f"{bound}/"))
        here = bound
        for name in path[len(bound) + 1 :].split("/"):
            if name.isascii():
                here = f"{here}/{name}"
                continue
            if here not in self._spelt:
                try:
                    self._spelt[here] = {_composed(n): n for n in os.listdir(here)}  # noqa: PTH208
                except (OSError, ValueError):
                    return path
            here = f"{here}/{self._spelt[here].get(_composed(name), name)}"
        return here

    def _is_file(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        listed = self._listed.get(folder)
        if listed is None:
            listed = self._listed[folder] = self._list(folder)
        linked = listed.get(name)
        if linked and not self._inside(os.path.realpath(path)):
            raise self._outside(path)
        return linked is not None

    def _list(self, folder: str) -> dict[str, bool]:
        """Names of the files in a folder, and whether each one is a link."""
        try:
            with os.scandir(folder) as entries:
                names = {e.name: e.is_symlink() for e in entries if e.is_file()}
        except (OSError, ValueError):  # ValueError: a NUL, or half a character
            return {}
        if names and not self._inside(os.path.realpath(folder)):
            raise self._outside(folder)
        return names

    def _inside(self, path: str) -> bool:
        return any(path == bound or path.startswith(f"{bound}/") for bound in self._bounds)

    def _outside(self, reference: str) -> BadInput:
        return BadInput(
            f"The image path {reference!a} leads out of {self.folder}; images outside the data "
            f"root are not read, so move the image into it or correct the record."
        )

    def __getstate__(self) -> dict[str, Any]:
        # Listings are large, and a worker needs few of them.
        return self.__dict__ | {"_listed": {}, "_spelt": {}}


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _coco_names(number: str) -> Iterable[str]:
    for split in ("train", "val"):
        yield f"{split}2017/{number}.jpg"
    for split in ("train", "val"):
        yield f"{split}2014/COCO_{split}2014_{number}.jpg"
    yield f"{number}.jpg"
    for split in ("train", "val"):
        yield f"COCO_{split}2014_{number}.jpg"
