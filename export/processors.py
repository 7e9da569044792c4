"""The reference for pixels: the image processor that a checkpoint's own folder names.

Contract: pixels come from the reference's own code, and never from `lite`. Where a folder names no
processor that transformers has (OpenFlamingo's checkpoints, mPLUG-Owl), open_clip's transform is
the reference, which such models were trained with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import transformers
from PIL import Image
from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

from lite.image.preprocessing import PAD, SQUASH, TILES, Preprocessing
from qlora.model.encoders.tiled import split

Reference = Callable[[Image.Image], np.ndarray]


def reference_of(folder: Path | None, p: Preprocessing) -> tuple[str, Reference]:
    """What the reference is called, and how it makes pixels `[3, size, size]` of a picture.

    Of tiles, `[tiles, 3, size, size]`: compare them with `tiles_of`.

    Args:
        folder: the one that holds the checkpoint's `preprocessor_config.json`, if any does.
        p: ours, for what no folder tells.
    """
    processor = _processor(folder)
    if processor is None and p.fit == TILES:
        processor = _mllama(p)
    if processor is None:
        return "open_clip's transform", _open_clip(p)
    padded = getattr(processor, "do_pad", None) is True

    def pixels(picture: Image.Image) -> np.ndarray:
        # LLaVA's original repository pads before the processor, which knows nothing of it.
        given = picture if p.fit != PAD or padded else on_a_square(picture, p.mean)
        made = processor(given, return_tensors="pt")
        values = made["pixel_values"] if hasattr(made, "keys") else made
        return values.numpy().reshape(-1, 3, p.size, p.size).squeeze()

    return type(processor).__name__.removesuffix("Pil"), pixels


def tiles_of(pixels: np.ndarray, p: Preprocessing) -> np.ndarray:
    """Our pixels of one picture in the form of the reference's."""
    if p.fit != TILES:
        return pixels
    tiles, _ = split(torch.from_numpy(pixels)[None], p.tiles)
    return tiles[0].numpy().squeeze()


def _processor(folder: Path | None) -> Any:
    """The processor of a folder on Pillow, as models were trained with; None without one."""
    path = folder / "preprocessor_config.json" if folder else None
    if folder is None or path is None or not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8-sig"))
    named = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    name = named.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
    known = getattr(transformers, f"{name}Pil", None) if name else None
    return known.from_pretrained(folder, local_files_only=True) if known else None


def _mllama(p: Preprocessing) -> MllamaImageProcessorPil:
    side = {"height": p.size, "width": p.size}
    return MllamaImageProcessorPil(
        size=side, image_mean=list(p.mean), image_std=list(p.std), max_image_tiles=p.tiles
    )


def _open_clip(p: Preprocessing) -> Reference:
    mode = "squash" if p.fit == SQUASH else "shortest"
    transform = open_clip.image_transform(
        p.size, is_train=False, mean=p.mean, std=p.std, resize_mode=mode
    )
    return lambda picture: transform(
        on_a_square(picture, p.mean) if p.fit == PAD else picture
    ).numpy()


def on_a_square(picture: Image.Image, mean: Sequence[float]) -> Image.Image:
    """A picture in the middle of a square of the mean colour, as LLaVA's `expand2square`."""
    side = max(picture.size)
    red, green, blue = (int(255 * value) for value in mean)
    square = Image.new("RGB", (side, side), (red, green, blue))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square
