"""How visual tokens enter the decoder: by gated cross-attention, or spliced into the prompt.

Contract: data and arithmetic over token ids, shared by training, export and chat. Whatever the
injection, an image is what `<image>` stands for in the ids, and every token has an attended image:
the number, from 1, of the image that it attends to or is a part of; 0 for none
(`lite.bundle.attend`).

`gated`    One `<image>` stands for an image, and the attend rule says which tokens attend to
           it. Its features are keys and values for each gated block.
`spliced`  An image takes as many `<image>` tokens as it has visual tokens, which replace them
           as embeddings. Images may be neighbours: each has its own tokens, counted from the first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lite.bundle.attend import NEIGHBOURS, first_image, image_index
from lite.errors import BadInput

GATED, SPLICED = "gated", "spliced"
INJECTIONS = (GATED, SPLICED)


@dataclass(frozen=True)
class Injection:
    """Where the images of one model stand in its token ids.

    Attributes:
        image_id: the id of `<image>`.
        image_tokens: how many of them stand for one image.
        attend: the attend rule.
    """

    image_id: int
    image_tokens: int
    attend: str

    @classmethod
    def from_name(cls, name: str, image_id: int, latents: int, attend: str) -> Injection:
        """The injection called `name`, of a model with `latents` visual tokens for each image."""
        return cls(image_id, latents if name == SPLICED else 1, attend)

    def attended_images(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The image of each token, int32 `[T]`; `ids` is the whole conversation.

        Raises:
            BadInput: `ids` hold a part of an image only.
        """
        return image_index(ids, self.image_id, self.attend, self.image_tokens)

    @property
    def several(self) -> bool:
        """Whether a token may attend to several images."""
        return self.attend == NEIGHBOURS

    def ranges(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The first and the last image that each token attends to, int32 `[T, 2]`.

        Errors as for `attended_images`.
        """
        last = self.attended_images(ids)
        first = first_image(ids, self.image_id) if self.several else last
        return np.stack((first, last), axis=-1)

    def index(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """What the model takes: `attended_images`, or `ranges` where a token may have several."""
        return self.ranges(ids) if self.several else self.attended_images(ids)

    def offsets(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """Which token of its image each `<image>` is, from 0, int64 `[T]`; 0 for other tokens."""
        is_image = np.asarray(ids) == self.image_id
        return np.where(is_image, (np.cumsum(is_image) - 1) % self.image_tokens, 0)

    def check(self, ids: Sequence[int] | np.ndarray, images: int) -> None:
        """Compare the images in `ids` with the number of those given.

        Raises:
            BadInput: they differ.
        """
        found = int((np.asarray(ids) == self.image_id).sum())
        if found != images * self.image_tokens:
            each = f" ({self.image_tokens} for each image)" if self.image_tokens > 1 else ""
            raise BadInput(
                f"The prompt has {found} <image> tokens{each} but {images} images were given; "
                f"give one image for each <image>."
            )
