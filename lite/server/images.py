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
from urllib.parse import unquote

from lite.errors import BadInput
from lite.image.preprocessing import load_image
from lite.recent import RecentlyUsed
from lite.runtime.vision import ImageFeatures, VisionEncoder
from lite.server.errors import Refused

CACHE_BYTES = 256 << 20
ONE_IMAGE = "the image"
URL_SAFE = str.maketrans("-_", "+/")


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

    def read(self, url: str, name: str) -> bytes:
        """The image file behind an address; `name` is what to call it.

        Raises:
            Refused: the address is not allowed, or holds no bytes.
        """
        try:
            return self._read(url)
        except Refused as error:
            if name != ONE_IMAGE:
                error.message = f"{_capital(name)}: {error.message[0].lower()}{error.message[1:]}"
            raise

    def _read(self, url: str) -> bytes:
        if url[:5].lower() != "data:":
            return self._fetch(url)
        head, comma, payload = url.partition(",")
        parameters = [part.strip().lower() for part in head.split(";")[1:]]
        if not comma or "base64" not in parameters:
            raise bad_image("an image's data: URL must look like data:image/png;base64,...")
        if "%" in payload:
            payload = unquote(payload)
        # With the URL-safe alphabet or without padding, as some clients write it.
        payload = "".join(payload.split()).translate(URL_SAFE).rstrip("=")
        try:
            data = base64.b64decode(payload + "=" * (-len(payload) % 4), validate=True)
        except (binascii.Error, ValueError):
            raise bad_image("an image's data: URL holds no valid base64") from None
        if not data:
            raise bad_image("an image's data: URL is empty")
        return data

    def encode(
        self, data: bytes, name: str, computing: Callable[[], None], caller: bytes = b""
    ) -> EncodedImage:
        """The features of an image file.

        Args:
            data: an image file.
            name: what to call it.
            computing: called if the vision graph has to run.
            caller: whose image it is, see `Settings.isolate`; empty shares what is cached.

        Raises:
            Refused: the bytes are no usable image.
        """
        key = hashlib.sha256(caller + data).digest()
        image = self._cache.get(key)
        if image is None:
            try:
                picture = load_image(data)
            except BadInput as error:
                message = _capital(str(error).replace("the given image", name))
                raise Refused(400, message, "messages", "invalid_image") from None
            # What another caller's image left in the encoder's own cache must not show.
            encode = self._vision.compute if caller else self._vision.encode
            image = EncodedImage(encode(picture, computing), picture.notes)
            self._cache.put(key, image)
        return image


def image_names(total: int) -> list[str]:
    """What to call the images of a conversation."""
    if total == 1:
        return [ONE_IMAGE]
    return [f"image {number} of {total}" for number in range(1, total + 1)]


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]


def bad_image(why: str) -> Refused:
    return Refused(400, f"{why[0].upper()}{why[1:]}.", "messages", "invalid_image_url")
