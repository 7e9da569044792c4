"""What all formats share: records become conversations, images become references.

Contract: a reader is a pure function of its files, the record's index and the random numbers that
it is given. What a record lacks is a `BadRecord`; nothing is guessed.
"""

from __future__ import annotations

import base64
import binascii
import random
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from lite.errors import BadInput
from qlora.data.conversation import BadRecord, Conversation, ImageRef
from qlora.data.formats.image_keys import has_marker, looks_like_image, stands_for_image
from qlora.data.images import ImageRoot, MissingImage
from qlora.data.records import Records

# Characters: more than a hash as a name, fewer than any encoded image.
_BASE64 = 80

NO_ANSWER, EMPTY_ANSWER, EMPTY_QUESTION = "no answer", "empty answer", "empty question"
MORE_MARKERS, IMAGE_IN_ANSWER = "more image markers than images", "image in an answer"


class Reader(ABC):
    """Conversations of one file, by the index of their record.

    Attributes:
        name: of the format.
        texts: keys of a record whose values are read as text.
        path: the file.
        records: what the file holds.
        images: where its images are.
        repairs: what was left out of records that are kept (or, when opening, of the file), and
            how often; counts on as records are read.
    """

    name: ClassVar[str]
    texts: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, source: Records | dict[str, Any], images: ImageRoot, path: Path) -> None:
        self.path, self.images = path, images
        self.repairs: Counter[str] = Counter()
        self.records: Sequence[Any] | Records = self.select(source)

    def select(self, source: Records | dict[str, Any]) -> Sequence[Any] | Records:
        """The records to read, of a file's content.

        Raises:
            BadInput: the file is built in another way.
        """
        if isinstance(source, Records):
            return source
        raise BadInput(
            f"{self.path} holds one object, and a file of the format {self.name} a list of "
            f"records; check its type."
        )

    def listed(self, source: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """The list of objects under a key of the file. Raises `BadInput`."""
        value = source.get(key)
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise BadInput(f"{self.path} has no list of objects under {key!r}; check its type.")
        return value

    @classmethod
    @abstractmethod
    def matches(cls, record: dict[str, Any]) -> bool:
        """Whether a record, or the object that the file is, has this format's keys."""

    @abstractmethod
    def read(self, record: dict[str, Any], id: str, random: random.Random) -> Conversation:
        """The conversation of one record. Raises `BadRecord`."""

    def __len__(self) -> int:
        return len(self.records)

    def conversation(self, index: int, random: random.Random) -> Conversation:
        """The conversation of a record.

        Args:
            index: of the record.
            random: freshly seeded; makes every choice that the format leaves open.

        Raises:
            BadRecord: it cannot be trained on.
            BadInput: the file is damaged there, or an image path leads out of the root.
        """
        record = self.records[index]
        if not isinstance(record, dict):
            raise BadRecord("not an object")
        conversation = self.read(record, self.id(index, record), random)
        self._check_texts(conversation, record)
        return conversation

    def _check_texts(self, conversation: Conversation, record: dict[str, Any]) -> None:
        """Refuse markers that stand for no image, and count what is read as text.

        Raises:
            BadRecord: a question or an answer has such a marker, or no answer is to be trained.
        """
        asked = [conversation.system or ""]
        asked += [text for one in conversation.exchanges for text in (one.question, one.context)]
        answers = [one.answer for one in conversation.exchanges]
        if any(map(stands_for_image, asked)):
            raise BadRecord(MORE_MARKERS)
        if any(map(stands_for_image, answers)):
            raise BadRecord(IMAGE_IN_ANSWER)
        if not any(one.trained for one in conversation.exchanges):
            raise BadRecord("no answer that is to be trained")
        if any(map(has_marker, (*asked, *answers))):
            self.repairs["image marker within a sentence read as text"] += 1
        if any(looks_like_image(record.get(key)) for key in self.texts):
            self.repairs["text that is the name of an image read as text"] += 1

    def id(self, index: int, record: Any = None) -> str:
        """What to call a record in messages."""
        record = self.records[index] if record is None else record
        given = next((record[k] for k in ("id", "question_id") if k in record), None)
        return str(given) if isinstance(given, (str, int)) else f"record {index}"

    def image(self, source: Any) -> ImageRef:
        """An image as records give it: a path, a `data:` URL, base64, bytes, or a dict of these.

        Raises:
            BadRecord: it is none of these, or missing.
            BadInput: the path leads out of the root.
        """
        if isinstance(source, dict):
            if isinstance(data := source.get("bytes"), bytes) and data:
                return ImageRef(str(source.get("path") or "the record's image"), data=data)
            source = next((source[k] for k in ("path", "url") if source.get(k)), None)
        if isinstance(source, bytes) and source:
            return ImageRef("the record's image", data=source)
        if not isinstance(source, str) or not source:
            raise BadRecord("image that is no path")
        if source.startswith("data:"):
            return _embedded(source)
        if source.lower().startswith(("http://", "https://")):
            raise MissingImage(source)  # nothing is fetched
        # No path of an image is so long and without an ending.
        if len(source) > _BASE64 and "." not in source:
            return _embedded(f"data:;base64,{source}")
        return self.images.find(source)


def _embedded(url: str) -> ImageRef:
    """The image in a `data:image/...;base64,` URL (RFC 2397)."""
    header, comma, body = url.partition(",")
    try:
        if not comma or not header.endswith(";base64"):
            raise ValueError
        data = base64.b64decode("".join(body.split()), validate=True)
    except (ValueError, binascii.Error):
        raise BadRecord("damaged data: URL") from None
    if not data:
        raise BadRecord("damaged data: URL")
    return ImageRef("the record's image", data=data)


def text(record: dict[str, Any], key: str) -> str:
    """A text without the white space around it; empty if it is missing or null.

    Raises:
        BadRecord: it is something else.
    """
    value = record.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRecord(f"{key} that is no text")
    return value.strip()


def question_and_answer(question: str, answer: str) -> tuple[str, str]:
    """The two. Raises `BadRecord` if one is empty."""
    if not question:
        raise BadRecord(EMPTY_QUESTION)
    if not answer:
        raise BadRecord(EMPTY_ANSWER)
    return question, answer


def texts(value: Any) -> list[str]:
    """The texts of a list that hold anything, or the one text given instead of a list."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, (list, tuple)):
        return []
    return [one.strip() for one in listed if isinstance(one, str) and one.strip()]
