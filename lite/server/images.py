"""Images of a request: from URLs to image features.

Contract: data: URLs with base64; anything that has to be fetched goes through
`lite.server.fetcher`. Features are cached under a hash of the image file, which is decoded once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from lite.errors import BadInput
from lite.image.preprocessing import load_image
from lite.recent import RecentlyUsed
from lite.runtime.vision import ImageFeatures, VisionEncoder
from lite.server.errors import Refused

CACHE_BYTES = 256 << 20


@dataclass(frozen=True)
class EncodedImage:
    """The features of an image, and what to tell the person about it."""

    features: ImageFeatures
    notes: tuple[str, ...] = ()


class Images:
    """Reads and encodes the images of clients, each file once."""

    def __init__(self, vision: VisionEncoder, fetch: Callable[[str], bytes]) -> None:
        self._vision = vision
        self._fetch = fetch
        self._cache: RecentlyUsed[bytes, EncodedImage] = RecentlyUsed(
            CACHE_BYTES, lambda image: image.features.array.nbytes
        )

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

    def encode(self, data: bytes, computing: Callable[[], None]) -> EncodedImage:
        """The features of an image file.

        Args:
            data: an image file.
            computing: called if the vision graph has to run.

        Raises:
            Refused: the bytes are no usable image.
        """
        key = hashlib.sha256(data).digest()
        image = self._cache.get(key)
        if image is None:
            try:
                picture = load_image(data)
            except BadInput as error:
                raise Refused(400, str(error), "messages", "invalid_image") from None
            image = EncodedImage(self._vision.encode(picture, computing), picture.notes)
            self._cache.put(key, image)
        return image


def bad_image(why: str) -> Refused:
    return Refused(400, f"{why[0].upper()}{why[1:]}.", "messages", "invalid_image_url")
