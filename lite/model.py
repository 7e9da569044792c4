"""A loaded bundle: tokenizer, vision encoder and decoder under one roof.

Contract: what `lite.load` returns; everything that Python users need hangs here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from lite.bundle import TOKENIZER, Bundle
from lite.chat import Chat, ImageSource, as_list
from lite.decoder import Decoder
from lite.errors import BadInput
from lite.images import load_image
from lite.template import template
from lite.tokenizer import Tokenizer
from lite.vision import VisionEncoder, VisualMemory


class Model:
    """A multimodal chat model that runs from a bundle.

    One model holds one KV cache, which its chats share: the last conversation continues for the
    cost of its new tokens, another one is read again where it differs.
    """

    def __init__(self, bundle: Bundle, device: str = "cpu", threads: int | None = None) -> None:
        self.bundle = bundle
        special_ids = bundle.manifest.special_ids
        self.tokenizer = Tokenizer.from_file(bundle.path(TOKENIZER), special_ids)
        self.vision = VisionEncoder(bundle, device, threads)
        self._decoder_options = (device, threads)

    @cached_property
    def decoder(self) -> Decoder:
        """The decoder, opened at first use."""
        return Decoder(self.bundle, *self._decoder_options)

    @property
    def context(self) -> int:
        """Tokens that prompt and answer may have together."""
        return self.bundle.manifest.sizes.context

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt, `<s>` first; special tokens spelled in it are recognised.

        For text that people write use `chat`, where nothing in it becomes a special token.
        """
        return self.tokenizer.tokenize(prompt)

    def look(self, images: ImageSource | Sequence[ImageSource] | None) -> list[VisualMemory]:
        """Visual memories of images: paths, encoded bytes, PIL images or uint8 `[H, W, 3]`.

        Raises:
            BadInput: one of them is not a usable image.
        """
        return [self.vision.encode(load_image(source)) for source in as_list(images)]

    def score(
        self, ids: Sequence[int] | np.ndarray, images: ImageSource | Sequence[ImageSource] = None
    ) -> np.ndarray:
        """Logits of every position, without sampling.

        Args:
            ids: token ids, for example of `tokenize`.
            images: one for each `<image>` in ids, in order.

        Returns:
            float32 `[T, vocab]`; row t is the prediction for token t + 1.

        Raises:
            BadInput: no tokens, too many, or images and `<image>` tokens differ in number.
        """
        return self.decoder.score(ids, self.look(images))

    def chat(self, system: str | None = None) -> Chat:
        """A new conversation; `system` replaces the template's opening line."""
        return Chat(self, template(self.bundle.manifest.template), system)

    def open(self, path: str | Path) -> Chat:
        """Continue a conversation that `Chat.save` wrote.

        Raises:
            BadInput: see `lite.session.load`.
        """
        from lite.session import load as load_session

        return load_session(self, Path(path))


def load(
    path: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    hashing: Callable[[str], None] = lambda name: None,
) -> Model:
    """Open a bundle.

    Args:
        path: the folder that lite-export wrote.
        device: `cpu`.
        threads: worker threads; None is one per physical core.
        hashing: called with the name of each large file that is checked for the first time.

    Raises:
        BadInput: there is no bundle at `path`, or it is damaged or altered.
    """
    if path is None:
        raise BadInput(
            "This release has no demo bundle inside; name a bundle (-m BUNDLE), which "
            "'lite-export tiny -o tiny-bundle' makes without any download."
        )
    return Model(Bundle.open(path, hashing), device, threads)
