"""Image features: computed once, then kept by content.

Contract: the features of an image depend on its decoded pixels, the preprocessing and the vision
graph, and the cache key is the sha256 over just these; never a path. What comes from the cache is
bit-equal to what the graph computed, or it is not used.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort

from lite.bundle.bundle import Bundle
from lite.bundle.manifest import VISION
from lite.errors import BadInput, LiteError, first_line
from lite.image.preprocessing import Picture, digest, to_pixels
from lite.recent import RecentlyUsed
from lite.runtime.device import CPU
from lite.runtime.feature_store import FeatureStore
from lite.runtime.ort_session import open_session
from lite.userdirs import cache_dir

MEMORY_BYTES = 256 << 20
DISK_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class ImageFeatures:
    """What the decoder attends to for one image.

    Attributes:
        key: sha256 of everything it depends on.
        array: float32 `Sizes.feature_shape`: of a gated decoder `[blocks, 2, heads, latents, d]`,
            keys at 0 and values at 1; where visual tokens are spliced, these, `[latents, d]`.
    """

    key: str
    array: np.ndarray


class VisionEncoder:
    """Pictures to image features, through a cache in memory and on disk."""

    def __init__(self, bundle: Bundle, device: str = CPU, threads: int | None = None) -> None:
        self._bundle = bundle
        self._options = (device, threads)
        self._session: ort.InferenceSession | None = None
        self._shape = bundle.manifest.sizes.feature_shape
        self._memory = RecentlyUsed[str, np.ndarray](MEMORY_BYTES, lambda a: a.nbytes)
        self._opening = threading.Lock()
        self._computing = threading.Lock()  # an image wanted by several threads is computed once
        self._disk = FeatureStore(cache_dir("visual"), self._shape, limit=DISK_BYTES)

    def encode(
        self, picture: Picture, computing: Callable[[], None] = lambda: None
    ) -> ImageFeatures:
        """The features of a picture.

        Args:
            picture: checked RGB.
            computing: called if the vision graph has to run.
        """
        key = self._key(picture)
        array = self._memory.get(key)
        if array is None:
            with self._computing:
                array = self._memory.get(key)
                if array is None:
                    array = self._disk.get(key)
                if array is None:
                    array = self.compute(picture, computing).array
                    self._disk.put(key, array)
                self._memory.put(key, array)
        return ImageFeatures(key, array)

    def compute(
        self, picture: Picture, computing: Callable[[], None] = lambda: None
    ) -> ImageFeatures:
        """As `encode`, without the cache: nothing tells whether the picture was seen before."""
        computing()
        pixels = to_pixels(picture, self._bundle.manifest.preprocessing)
        return ImageFeatures(self._key(picture), self.run(pixels[None])[1][0])

    def _key(self, picture: Picture) -> str:
        content = f"{digest(picture)} {self._bundle.vision_digest}"
        return hashlib.sha256(content.encode()).hexdigest()

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The vision graph itself, without the cache.

        Args:
            pixels: float32 `[n, 3, S, S]`.

        Returns:
            resampled tokens `[n, L, D_vis]` and features `[n, *Sizes.feature_shape]`.
        """
        session = self.open()  # late: a cached image needs no vision graph at all
        names = ["resampled_tokens", "visual_memory"]
        try:
            resampled, features = session.run(names, {"pixels": pixels})
        except Exception as error:
            raise LiteError(
                f"ONNX Runtime failed in the vision graph ({first_line(error)}); "
                f"update onnxruntime or export the bundle again."
            ) from error
        return resampled, features

    def open(self) -> ort.InferenceSession:
        """Open the vision graph if it is not open.

        Raises:
            BadInput: the manifest does not describe it.
            LiteError: ONNX Runtime refuses it.
        """
        with self._opening:
            if self._session is None:
                self._session = self._opened()
            return self._session

    def _opened(self) -> ort.InferenceSession:
        session = open_session(self._bundle.path(VISION), *self._options)
        side = self._bundle.manifest.preprocessing.side
        shapes = {end.name: end.shape for end in (*session.get_inputs(), *session.get_outputs())}
        if (
            shapes.get("pixels", [])[2:] != [side, side]
            or tuple(shapes.get("visual_memory", [])[1:]) != self._shape
        ):
            raise BadInput(
                f"The manifest of {self._bundle.folder} does not describe its vision graph; "
                f"export the bundle again."
            )
        return session
