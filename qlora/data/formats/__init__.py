"""Every format that a data set may have, and finding out which one it is.

Contract: by content, never by file name. What fits no format, or more than one, is refused with
the `type:` to give.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

from lite.errors import BadInput
from qlora.data.formats.chats import Baize, Llava, Messages, ShareGpt
from qlora.data.formats.instructions import Alpaca, Dolly
from qlora.data.formats.pictures import AOkVqa, Coco, MiniGpt4, OcrVqa
from qlora.data.formats.reader import Reader
from qlora.data.images import ImageRoot
from qlora.data.records import Records, open_records

__all__ = ["FORMATS", "Reader", "open_reader"]

FORMATS: dict[str, type[Reader]] = {
    reader.name: reader
    for reader in (
        Llava, MiniGpt4, AOkVqa, Coco, OcrVqa, Dolly, Alpaca, Baize, ShareGpt, Messages,
    )
}  # fmt: skip
# Of files that hold one object.
_OBJECTS = (MiniGpt4, Coco, OcrVqa)
# mix665k begins with images and has dialogues without any further on.
_LOOKED_AT = 100


def open_reader(path: Path, images: ImageRoot | None = None, format: str | None = None) -> Reader:
    """Open a data set.

    Args:
        path: its file.
        images: where its images are; None for the file's folder.
        format: one of `FORMATS`; None to find out.

    Raises:
        BadInput: the file cannot be read, or the format is unknown, ambiguous or misspelt.
    """
    path = Path(path)
    if format is not None and format not in FORMATS:
        raise BadInput(
            f"{format!r} is no type of data set, asked for {path}; use one of {', '.join(FORMATS)}."
        )
    source = open_records(path)
    if not len(source):
        raise BadInput(f"{path} holds no records; download it again or leave it out.")
    kind = FORMATS[format] if format is not None else _detect(source, path)
    return kind(source, ImageRoot(path.parent) if images is None else images, path)


def _detect(source: Records | dict[str, Any], path: Path) -> type[Reader]:
    records = [source] if isinstance(source, dict) else [*islice(source, _LOOKED_AT)]
    candidates = _OBJECTS if isinstance(source, dict) else tuple(FORMATS.values())
    objects = [record for record in records if isinstance(record, dict)]
    fitting = [kind for kind in candidates if any(map(kind.matches, objects))]
    if fitting == [Llava, ShareGpt]:
        return Llava
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        names = " or ".join(kind.name for kind in fitting)
        raise BadInput(f"{path} may be of several formats; give {names} as the set's type.")
    if objects and {"user_input", "responses_and_scores"} <= objects[0].keys():
        raise BadInput(
            f"{path} compares answers and teaches none (comparison_data of GPT-4-LLM); use "
            f"alpaca_gpt4_data.json instead."
        )
    keys = ", ".join(sorted(objects[0])[:8]) if objects else "no objects"
    raise BadInput(
        f"{path} is of no known format (it holds {keys[:200]!a}); give its type, one of "
        f"{', '.join(FORMATS)}."
    )
