"""The images of a record, under whatever key they are, and markers that stand for one in a text.

Contract: every key that could hold an image is accounted for. Its image is used, or the record is
refused with the key's name; what is only a text about images is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import PurePosixPath
from typing import Any

from qlora.data.conversation import BadRecord

# Stands for the next image: `<image>`, and what other tools write for it.
MARKER = re.compile(r"(?:<img>)?<\|?image(?:here|_?pad)?\|?>(?:</img>)?", re.I)
# Keys without case and separators: image, images, img_path, imageFile, picture_urls, image_0 ...
_IMAGE_KEY = re.compile(
    r"(?:image|img|picture|pic|photo)s?"
    r"(?:paths?|files?|filenames?|filepaths?|names?|urls?|uris?|src|bytes|base64|b64)?\d*"
)
_IMAGE_ID = re.compile(r"(?:image|img|picture|photo)ids?")
_OTHER_MEDIA_KEY = re.compile(r"(?:video|audio|sound)s?(?:paths?|files?|filenames?|urls?)?\d*")
_IMAGE_FILE = re.compile(
    r"[^\n]{0,400}\.(?:jpe?g|jfif|png|webp|gif|bmp|tiff?|heic|heif|avif)(?:\?[^\s]*)?", re.I
)
_WEB = ("http://", "https://")
# They name a record and not a file, though many are the name of its image.
_ID_KEYS = frozenset(("id", "uid", "uuid", "key", "question_id", "sample_id", "record_id"))
# The same, and what tells one image from another by a number or a path.
_ANY_MARKER = re.compile(rf"{MARKER.pattern}|<\|?image[_ ]?\d+\|?>|<img>[^<>\n]+</img>", re.I)
_DEPTH = 4


def images_of(record: Mapping[str, Any], texts: Collection[str] = ()) -> list[Any]:
    """What a record lists as its images, whether one or several.

    Args:
        record: or a message of it.
        texts: keys whose values are read as text.

    Raises:
        BadRecord: two keys list different images, a key that is not read holds one, or there is a
            video or a sound.
    """
    named = {
        key: _listed(value)
        for key, value in record.items()
        if key not in texts and filled(value) and _IMAGE_KEY.fullmatch(_plain(key))
    }
    used: list[Any] = []
    # A file that is here comes before an address of the same image.
    for key in sorted(named, key=lambda key: all(map(_is_address, named[key]))):
        if not used:
            used = named[key]
        elif not _same(named[key], used):
            raise BadRecord(f"different images under {' and '.join(named)}")
    check_other_keys(record, used, texts)
    for key, value in record.items():
        if not used and key not in texts and filled(value) and _IMAGE_ID.fullmatch(_plain(key)):
            raise BadRecord(f"image under {str(key)[:60]!a}, which is not read")
    return used


def check_other_keys(
    record: Mapping[str, Any], used: list[Any], texts: Collection[str] = (), depth: int = _DEPTH
) -> None:
    """Refuse a record in which another key holds an image that is not one of those used.

    Raises:
        BadRecord: with the key's name.
    """
    for key, value in record.items():
        if key in texts or key in _ID_KEYS or not filled(value):
            continue
        if _OTHER_MEDIA_KEY.fullmatch(_plain(key)):
            raise BadRecord(re.sub(r"[\d_]+$", "", _plain(key)))
        if isinstance(value, dict) and depth and not _holds_bytes(value):
            check_other_keys(value, used, (), depth - 1)
        elif any(map(looks_like_image, _listed(value))) and not _same(_listed(value), used):
            raise BadRecord(f"image under {str(key)[:60]!a}, which is not read")


def looks_like_image(value: Any) -> bool:
    """Whether a value is an image by its own look: a file name, an address, or bytes."""
    if isinstance(value, bytes):
        return bool(value)
    if isinstance(value, str):
        return value.startswith("data:image/") or bool(_IMAGE_FILE.fullmatch(value.strip()))
    return isinstance(value, dict) and (
        _holds_bytes(value) or looks_like_image(value.get("path") or value.get("url"))
    )


def has_marker(text: str) -> bool:
    """Whether a text holds what stands for an image in some tool's format, as marker or as text."""
    return _ANY_MARKER.search(text) is not None


def stands_for_image(text: str) -> bool:
    """Whether a marker in a text stands for an image.

    It does at the start or end of the text and on a line of its own. Within a sentence, or with a
    closing tag, it is what the text is about.
    """
    if "</image>" in text.lower():
        return False
    lines = (line.strip() for line in text.splitlines())
    return any(
        (not found.string[: found.start()].strip() or not found.string[found.end() :].strip())
        for found in _ANY_MARKER.finditer(text)
    ) or any(_ANY_MARKER.fullmatch(line) for line in lines)


def filled(value: Any) -> bool:
    """Whether a record's value holds anything: columns that some records lack are null or empty."""
    if isinstance(value, (list, tuple)):
        return any(map(filled, value))
    if isinstance(value, dict):
        return any(map(filled, value.values()))
    return value is not None and value is not False and value != ""


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _same(values: list[Any], used: list[Any]) -> bool:
    """Whether values only repeat the images used, by another path, or as addresses of them."""
    if not used:
        return False
    names = {_stem(one) for one in used} - {""}
    return all(one in used or _is_address(one) or _stem(one) in names for one in values)


def _stem(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("path") or value.get("url") or ""
    return PurePosixPath(str(value).replace("\\", "/")).stem if value else ""


def _is_address(value: Any) -> bool:
    if isinstance(value, dict):
        value = value.get("path") or value.get("url")
    return isinstance(value, str) and value.lower().startswith(_WEB)


def _holds_bytes(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("bytes"), bytes)


def _plain(key: Any) -> str:
    return re.sub(r"[^a-z0-9]", "", str(key).lower())
