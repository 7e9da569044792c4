"""Data files for tests."""

import json
import random
from pathlib import Path
from typing import Any

from qlora.data.conversation import Conversation
from qlora.data.formats import Reader, open_reader
from qlora.data.images import ImageRoot


def save(path: Path, content: Any) -> Path:
    """Write JSON, or lines of it where the name asks for them."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(one) + "\n" for one in content))
    else:
        path.write_text(json.dumps(content))
    return path


def pictures(folder: Path, *names: str) -> ImageRoot:
    """A folder with files of these names; nothing decodes them."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"picture")
    return ImageRoot(folder)


def reader(folder: Path, content: Any, *names: str, format: str | None = None) -> Reader:
    """A reader of a file with this content, and of images of these names."""
    root = pictures(folder, *names)
    return open_reader(save(folder / "data.json", content), root, format)


def read(folder: Path, record: Any, *names: str, format: str | None = None) -> Conversation:
    """The one record of a list, as a conversation."""
    return reader(folder, [record], *names, format=format).conversation(0, random.Random(0))


def exchanges_of(conversation: Conversation) -> list[tuple[str, str]]:
    """Questions and answers."""
    return [(one.question, one.answer) for one in conversation.exchanges]


def image_names(conversation: Conversation) -> list[list[str]]:
    """Names of the images of each exchange."""
    return [[image.name for image in one.images] for one in conversation.exchanges]
