"""What `lite.load` returns: a bundle ready to chat, to tokenize and to score.

Contract: everything that Python users need can be reached from here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from lite import demo
from lite.bundle.bundle import Bundle
from lite.chat.chat import Chat
from lite.chat.engine import Engine
from lite.chat.images import ImageInputs, image_list
from lite.image.preprocessing import load_image
from lite.runtime.vision import ImageFeatures


class Model(Engine):
    """A multimodal chat model that runs from a bundle.

    Safe to use from several threads, each with chats of its own.

    Example:
        >>> model = lite.load("bundle")
        >>> logits = model.score(model.tokenize("Once upon a time"))
        >>> chat = model.chat()
    """

    def tokenize(self, prompt: str) -> list[int]:
        """Token ids of a prompt, `<s>` first; special tokens spelled in it are recognised.

        For text that people write use `chat`, where nothing in it becomes a special token.
        """
        return self.tokenizer.tokenize(prompt)

    def encode_images(self, images: ImageInputs) -> list[ImageFeatures]:
        """Features of images: paths, encoded bytes, PIL images or uint8 `[H, W, 3]`.

        Raises:
            BadInput: one of them is not a usable image.
        """
        return [
            image if isinstance(image, ImageFeatures) else self.vision.encode(load_image(image))
            for image in image_list(images)
        ]

    def score(self, ids: Sequence[int] | np.ndarray, images: ImageInputs = None) -> np.ndarray:
        """Logits of every position, without sampling.

        Args:
            ids: token ids, for example of `tokenize`.
            images: one for each `<image>` in ids, in order.

        Returns:
            float32 `[T, vocab]`; row t is the prediction for token t + 1.

        Raises:
            BadInput: no tokens, too many, or images and `<image>` tokens differ in number.
        """
        features = self.encode_images(images)
        with self.decoders.lend([], []) as decoder:
            return decoder.score(ids, features)

    def chat(self, system: str | None = None) -> Chat:
        """A new conversation; `system` replaces the template's system line."""
        return Chat(self, system)

    def open(self, path: str | Path) -> Chat:
        """Continue a conversation that `Chat.save` wrote.

        Raises:
            BadInput: see `lite.chat.session.load`.
        """
        chat = self.chat()
        chat.restore(path)
        return chat


def load(
    path: str | Path | None = None,
    device: str = "cpu",
    threads: int | None = None,
    hashing: Callable[[str], None] = lambda name: None,
    notice: Callable[[str], None] = lambda sentence: None,
    verify: bool = False,
) -> Model:
    """Open a bundle.

    Args:
        path: the folder that lite-export wrote; None is the demo bundle of the package.
        device: `cpu`, or `cuda` for an NVIDIA GPU with a bundle of fp16 activations; without such
            a GPU the CPU does the work.
        threads: worker threads; None is what decodes a large model fastest, measured at its first
            use on a machine.
        hashing: called with the name of each large file that is checked for the first time.
        notice: called with what the demo model is, and with a sentence before other work that is
            done once on each machine.
        verify: hash every file of the bundle, the large ones too that were hashed before.

    Raises:
        BadInput: there is no bundle at `path`, or it is damaged or altered.
    """
    bundle = Bundle.open(demo.folder() if path is None else path, hashing, verify)
    model = Model(bundle, device, threads, notice)
    if path is None:
        notice(demo.NOTICE)
    return model
