"""The prompts that every export is tried with, and the torch model that answers them.

Contract: prompts and pictures are the same on every machine. `stream` keeps one decoder layer in
memory at a time, so a model of any size answers on a machine that could not hold it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from lite.image.preprocessing import Preprocessing, load_image, to_pixels
from lite.text.template import Template, join
from lite.text.tokenizer import Tokenizer
from qlora.checkpoints.sources import TensorSource
from qlora.model import VisionLanguageModel
from qlora.model.model import assign

QUESTIONS = (
    ("What is in the image?", 1),
    ("Compare the two images, and say which one is brighter.", 2),
    ("How do I bake a lasagna with cheese and sauce?", 0),
)


@dataclass(frozen=True)
class Probe:
    """One prompt.

    Attributes:
        ids: token ids.
        pictures: one for each `<image>` in ids.
        pixels: the same for the model, `[n, 3, H, W]`; None without pictures.
    """

    ids: list[int]
    pictures: list[Image.Image]
    pixels: Tensor | None


def make_probes(tokenizer: Tokenizer, text: Template, preprocessing: Preprocessing) -> list[Probe]:
    """The prompts of `QUESTIONS` as one model sees them."""
    probes = []
    for question, count in QUESTIONS:
        ids = tokenizer.encode(join([*text.begin(text.system), *text.turn(question, count)]))
        pictures = probe_pictures()[:count]
        pixels = [torch.from_numpy(to_pixels(load_image(p), preprocessing)) for p in pictures]
        probes.append(Probe(ids, pictures, torch.stack(pixels) if pixels else None))
    return probes


def probe_pictures() -> list[Image.Image]:
    """Two pictures with edges, colours and gradients, one wide and one tall."""
    pictures = []
    for width, height, seed in ((320, 200, 1), (150, 260, 2)):
        random = np.random.default_rng(seed)
        blocks = random.integers(0, 256, (height // 10, width // 10, 3), dtype=np.uint8)
        pictures.append(Image.fromarray(blocks).resize((width, height), Image.Resampling.BILINEAR))
    return pictures


def odd_pictures() -> list[Image.Image]:
    """Pictures of common sizes that tell one way of rounding from another."""
    pictures = []
    for width, height in ((640, 427), (427, 640), (1000, 667)):
        random = np.random.default_rng(width)
        noise = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        pictures.append(Image.fromarray(noise).resize((width, height), Image.Resampling.BILINEAR))
    return pictures


def stream(model: VisionLanguageModel, tensors: TensorSource) -> None:
    """Make `model` hold its decoder layers only while each of them runs, in float32."""
    layers = "lang_encoder.model.layers."
    for name, _ in [*model.named_parameters()]:
        if not name.startswith(layers):
            assign(model, name, tensors[name].float())

    def load(layer: nn.Module, prefix: str) -> None:
        for name, _ in [*layer.named_parameters()]:
            assign(layer, name, tensors[prefix + name].float())

    for i, layer in enumerate(model.lang_encoder.model.layers):
        layer.register_forward_pre_hook(lambda m, _, p=f"{layers}{i}.": load(m, p))
        layer.register_forward_hook(lambda m, _, out: (m.to("meta"), out)[1])
