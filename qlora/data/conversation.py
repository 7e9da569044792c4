"""The normal form of training data: conversations of questions and answers, with their images.

Contract: every format's reader gives this and nothing else; what is trained on, audited and shown
is computed from it. An image is a reference that is read when asked for, never pixels in memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from lite.image.loading import Picture, load_image


class BadRecord(Exception):
    """A record cannot be trained on; the message is its kind, short and countable ("no answer")."""


@dataclass(frozen=True)
class ImageRef:
    """Where one picture is: a file, or bytes that a record carries.

    Attributes:
        name: what to call it in messages.
        path: the file, or None.
        data: the encoded bytes, or None.
    """

    name: str
    path: Path | None = None
    data: bytes | None = None

    @property
    def key(self) -> bytes:
        """16 bytes that are equal for the same file, or for the same bytes in a record."""
        where = self.data if self.data is not None else str(self.path).encode("utf-8", "replace")
        return blake2b(where, digest_size=16).digest()

    def read(self) -> bytes:
        """The encoded file. Raises OSError."""
        if self.data is not None:
            return self.data
        assert self.path is not None
        return self.path.read_bytes()

    def load(self) -> Picture:
        """The picture, decoded; errors as of `lite.image.loading.load_image`."""
        source = self.path if self.data is None else self.data
        assert source is not None
        return load_image(source)


@dataclass(frozen=True)
class Exchange:
    """One question and the answer to learn.

    Attributes:
        question: the instruction.
        answer: what the model is trained to reply.
        context: the text of the template's input section; empty for none.
        images: shown before the question.
        weight: of the loss of the answer's tokens; 0 keeps the answer as context only.
    """

    question: str
    answer: str
    context: str = ""
    images: tuple[ImageRef, ...] = ()
    weight: float = 1.0

    @property
    def trained(self) -> bool:
        """Whether the answer gives a loss."""
        return self.weight > 0


@dataclass(frozen=True)
class Conversation:
    """One training example.

    Attributes:
        id: names the record in messages.
        exchanges: at least one.
        system: the opening line instead of the template's, or None.
    """

    id: str
    exchanges: tuple[Exchange, ...]
    system: str | None = None

    @property
    def images(self) -> tuple[ImageRef, ...]:
        """All images in the order in which they are shown."""
        return tuple(image for exchange in self.exchanges for image in exchange.images)
