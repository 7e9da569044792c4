"""The images of a question, in whatever form they are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from lite.image.loading import ImageSource, Picture, load_image
from lite.runtime.vision import ImageFeatures

# An image of a question: something to decode, or features of `Model.encode_images`.
ImageInput: TypeAlias = ImageSource | ImageFeatures
ImageInputs: TypeAlias = ImageInput | Sequence[ImageInput] | None


def image_list(images: ImageInputs) -> list[ImageInput]:
    """None, one image or several as a list."""
    if images is None:
        return []
    return list(images) if isinstance(images, list | tuple) else [images]  # type: ignore[list-item]


def decoded(images: list[ImageInput]) -> list[Picture | ImageFeatures]:
    """Pictures of what is to be encoded. Raises `BadInput` for what is no usable image."""
    return [image if isinstance(image, ImageFeatures) else load_image(image) for image in images]
