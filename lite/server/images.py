"""Images of a request: from addresses to visual memories.

Contract: data: URLs with base64; anything that has to be fetched goes through `lite.server.fetch`.
An image that was seen before is recognised by its bytes, so it is not even decoded again.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from lite.errors import BadInput
from lite.image.preprocessing import load_image
from lite.runtime.vision import ImageFeatures, VisionEncoder
from lite.server.errors import Refused
from lite.server.recent import Recent

CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class Look:
    """An image as the model sees it, and what to tell the person about it."""

    memory: ImageFeatures
    notes: tuple[str, ...] = ()


class Images:
    """Encoded images of clients, looked at once."""

    def __init__(self, vision: VisionEncoder, fetch: Callable[[str], bytes]) -> None:
        self._vision = vision
        self._fetch = fetch
        self._known: Recent[Look] = Recent(CACHE_BYTES)

    def read(self, url: str) -> bytes:
        """The encoded image behind an address.

        Raises:
            Refused: the address is not allowed, or holds no bytes.
        """
        if url[:5].lower() != "data:":
            return self._fetch(url)
        head, comma, payload = url.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise bad_image("an image's data: URL must look like data:image/png;base64,...")
        try:
            data = base64.b64decode("".join(payload.split()), validate=True)
        except (binascii.Error, ValueError):
            raise bad_image("an image's data: URL holds no valid base64") from None
        if not data:
            raise bad_image("an image's data: URL is empty")
        return data

    def look(self, data: bytes, computing: Callable[[], None]) -> Look:
        """What the model sees of an encoded image.

        Args:
            data: an image file.
            computing: called if the vision graph has to run.

        Raises:
            Refused: the bytes are no usable image.
        """
        key = hashlib.sha256(data).digest()
        look = self._known.get(key)
        if look is None:
            try:
                picture = load_image(data)
            except BadInput as error:
                raise Refused(400, str(error), "messages", "invalid_image") from None
            look = Look(self._vision.encode(picture, computing), picture.notes)
            self._known.put(key, look, look.memory.array.nbytes)
        return look


def bad_image(why: str) -> Refused:
    return Refused(400, f"{why[0].upper()}{why[1:]}.", "messages", "invalid_image_url")
