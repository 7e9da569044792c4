"""Visual tokens of images, computed once and kept on disk.

Contract: vision encoder and connector are frozen, so what is kept equals what would be computed,
bit for bit: each image is encoded on its own, whatever row it is in. What is kept is found by the
image file's content, in a folder named after the weights and the data type.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lite.image.preprocessing import Preprocessing, to_pixels
from lite.runtime.feature_store import FeatureStore
from qlora.data.conversation import ImageRef
from qlora.model import VisionLanguageModel


@dataclass(frozen=True)
class ImageInput:
    """An image on its way to the model: pixels, or only its key where its tokens are on disk.

    Attributes:
        ref: where it comes from.
        key: SHA-256 of the encoded file.
        pixels: `[3, H, W]`, or None.
    """

    ref: ImageRef
    key: str
    pixels: Tensor | None


class VisionFeatures:
    """A model's frozen vision encoder and connector, through a store on disk.

    Attributes:
        store: of visual tokens, as bytes; None where they are computed each time.
    """

    def __init__(self, model: VisionLanguageModel, dtype: torch.dtype, folder: Path | None) -> None:
        """
        Args:
            model: whose vision encoder and connector are used.
            dtype: of their parameters.
            folder: where tokens are kept, or None to compute them each time.
        """
        self._model, self._dtype = model, dtype
        self._preprocessing: Preprocessing = model.config.preprocessing
        self.store: FeatureStore | None = None
        if folder is not None:
            # numpy has no bfloat16, so the values are kept as their bytes.
            shape = (model.config.latents, model.config.dim_visual * dtype.itemsize)
            self.store = FeatureStore(folder / weights_digest(model), shape, np.uint8)

    @torch.no_grad()
    def encode(self, images: Sequence[ImageInput]) -> Tensor | None:
        """Visual tokens `[1, n, L, D_vis]` of a row's images; None where it has none."""
        return torch.stack([self._tokens(image) for image in images])[None] if images else None

    def _tokens(self, image: ImageInput) -> Tensor:
        device = next(self._model.connector.parameters()).device
        kept = self.store.get(image.key) if self.store is not None else None
        if kept is not None:
            return torch.from_numpy(kept.copy()).view(self._dtype).to(device)
        pixels = image.pixels
        if pixels is None:
            pixels = _pixels(image.ref, self._preprocessing)
        tokens = self._model.encode(pixels[None].to(device, self._dtype))[0]
        if self.store is not None:
            self.store.put(image.key, tokens.cpu().contiguous().view(torch.uint8).numpy())
        return tokens


def image_input(
    ref: ImageRef, preprocessing: Preprocessing, store: FeatureStore | None
) -> ImageInput:
    """Read and decode one image, unless its tokens are on disk; runs in the data workers.

    Raises:
        BadInput, OSError: the image cannot be read.
    """
    key = hashlib.sha256(ref.read()).hexdigest()
    pixels = None if store is not None and key in store else _pixels(ref, preprocessing)
    return ImageInput(ref, key, pixels)


def weights_digest(model: VisionLanguageModel) -> str:
    """SHA-256 of everything that visual tokens depend on, shortened to 16 characters."""
    config = model.config
    settings = (config.preprocessing, config.encoder, config.connector)
    sha = hashlib.sha256(repr(settings).encode())
    for part in (model.vision_encoder, model.connector):
        for name, parameter in part.named_parameters():
            sha.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
            sha.update(
                parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            )
    return sha.hexdigest()[:16]


def _pixels(ref: ImageRef, preprocessing: Preprocessing) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(to_pixels(ref.load(), preprocessing)))
