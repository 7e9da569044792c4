"""Resampled tokens of images, computed once and kept on disk.

Contract: vision encoder and resampler are frozen, so what is kept equals what would be computed,
bit for bit: each image is encoded on its own, whatever row it is in. The cache is keyed by the
image file's content and lies in a folder named after the weights and the data type; it may vanish
at any time, and a file that was torn by a crash is computed again.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lite.files import replacing
from lite.image.preprocessing import Preprocessing, to_pixels
from qlora.data.conversation import ImageRef
from qlora.model import VisionLanguageModel

_CHECK = 4  # bytes of CRC-32 at the end of a file


@dataclass(frozen=True)
class Shown:
    """An image on its way to the model: pixels, or only its key where its tokens are on disk.

    Attributes:
        ref: where it comes from.
        key: SHA-256 of the encoded file.
        pixels: `[3, H, W]`, or None.
    """

    ref: ImageRef
    key: str
    pixels: Tensor | None


class VisualCache:
    """Resampled tokens `[L, D_vis]` of one type, by key, in a folder."""

    def __init__(self, folder: Path, shape: tuple[int, int], dtype: torch.dtype) -> None:
        self.folder, self.shape, self.dtype = folder, shape, dtype
        self.full = False

    def __contains__(self, key: str) -> bool:
        return self._path(key).exists()

    def read(self, key: str) -> Tensor | None:
        """The tokens, or None where they are not there or not sound."""
        try:
            content = self._path(key).read_bytes()
        except OSError:
            return None
        body = content[:-_CHECK]
        size = self.shape[0] * self.shape[1] * self.dtype.itemsize
        if len(body) != size or zlib.crc32(body).to_bytes(_CHECK, "little") != content[-_CHECK:]:
            return None
        return torch.frombuffer(bytearray(body), dtype=self.dtype).view(self.shape)

    def write(self, key: str, tokens: Tensor) -> None:
        """Keep tokens; a full disk only ends the keeping."""
        if self.full:
            return
        body = tokens.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
        try:
            with replacing(self._path(key)) as partial:
                partial.write_bytes(body + zlib.crc32(body).to_bytes(_CHECK, "little"))
        except OSError:
            self.full = True

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key


class Eye:
    """What stands between pictures and the language model during training."""

    def __init__(self, model: VisionLanguageModel, dtype: torch.dtype, folder: Path | None) -> None:
        """
        Args:
            model: whose frozen vision encoder and connector are used.
            dtype: of their parameters.
            folder: where tokens are kept, or None to compute them each time.
        """
        self._model, self._dtype = model, dtype
        self._preprocessing: Preprocessing = model.config.preprocessing
        shape = (model.config.latents, model.config.dim_visual)
        self.cache = None
        if folder is not None:
            self.cache = VisualCache(folder / weights_digest(model), shape, dtype)

    @torch.no_grad()
    def see(self, images: list[Shown]) -> Tensor | None:
        """Resampled tokens `[1, n, L, D_vis]` of a row's images; None where it has none."""
        return torch.stack([self._tokens(image) for image in images])[None] if images else None

    def _tokens(self, image: Shown) -> Tensor:
        device = next(self._model.connector.parameters()).device
        kept = self.cache.read(image.key) if self.cache is not None else None
        if kept is not None:
            return kept.to(device)
        pixels = image.pixels
        if pixels is None:
            pixels = _pixels(image.ref, self._preprocessing)
        tokens = self._model.encode(pixels[None].to(device, self._dtype))[0]
        if self.cache is not None:
            self.cache.write(image.key, tokens)
        return tokens


def prepare(ref: ImageRef, preprocessing: Preprocessing, cache: VisualCache | None) -> Shown:
    """Read and decode one image, unless its tokens are on disk; runs in the data workers.

    Raises:
        BadInput, OSError: the image cannot be read.
    """
    key = hashlib.sha256(ref.read()).hexdigest()
    pixels = None if cache is not None and key in cache else _pixels(ref, preprocessing)
    return Shown(ref, key, pixels)


def weights_digest(model: VisionLanguageModel) -> str:
    """SHA-256 of everything that resampled tokens depend on, shortened to 16 characters."""
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
