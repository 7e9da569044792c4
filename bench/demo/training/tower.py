"""The demo's CLIP, trained by open_clip's contrastive loss and by labels of each patch.

Contract: `python -m bench.demo.training.tower FOLDER` leaves `clip.json` and `clip.safetensors` in
FOLDER, in open_clip's layout (the stem beside it), and `clip-scores.json`. Needs the tokenizer that
`bench.demo.training.language` makes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import open_clip
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

from bench.demo.draw import draw
from bench.demo.kinds import a, of_category
from bench.demo.perception import caption_of
from bench.demo.training.cells import (
    CELL_CLASSES,
    COLOURS,
    LETTERS,
    NONE,
    WAVES,
    Cells,
    cell_labels,
    position_codes,
)
from bench.demo.training.language import Tokenized
from bench.demo.training.loop import Plan, batches, report_scores, stage, this_device, train
from bench.demo.training.scenes import scene
from bench.demo.training.sizes import CLIP, SIDE
from lite.cli import entry_point
from lite.files import replacing
from qlora.checkpoints.clip_visual import STEM, conv_stem

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
# Weights of the losses: contrast of pictures and captions, what each cell shows, where it is.
CONTRAST, SHOW, COLOUR, LETTER, BOX, PLACE = 0.3, 1.0, 0.4, 1.5, 2.0, 2.0
# Widths of the heads: one for each of these losses but the first.
HEADS = len(CELL_CLASSES), len(COLOURS), len(LETTERS), 4, 4 * len(WAVES)
# Weight of a background cell in the loss, beside 1 of a thing's.
BACKGROUND_WEIGHT = 0.2


class SupervisedClip(nn.Module):
    """A CLIP, and linear heads that predict what each patch token shows."""

    def __init__(self) -> None:
        super().__init__()
        self.clip = open_clip.CLIP(**_open_clip_config())
        vision = CLIP["vision_cfg"]
        width = vision["width"]
        self.clip.visual.conv1 = conv_stem(vision[STEM], width, normed=True)
        self.clip.visual.conv1.to(memory_format=torch.channels_last)
        self.norm = nn.LayerNorm(width)
        self.heads = nn.Linear(width, sum(HEADS))

    def forward(self, pixels: Tensor, texts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of pictures and texts `[n, D]`, and the heads' outputs `[n, cells, ...]`."""
        visual = self.clip.visual
        tokens = visual.forward_intermediates(
            pixels, indices=1, normalize_intermediates=False, output_fmt="NLC"
        )
        patches = tokens["image_intermediates"][-1]
        images = normalize(tokens["image_features"].float(), dim=-1)
        return images, self.clip.encode_text(texts, normalize=True), self.heads(self.norm(patches))


class Pictures(Tokenized[tuple[np.ndarray, list[int], Cells]]):
    """Picture number i, the ids of a caption, and the labels of its cells."""

    def __init__(self, tokenizer: Path, split: str = "train", seed: int = 0) -> None:
        super().__init__(tokenizer, seed)
        self.split = split

    def __getitem__(self, number: int) -> tuple[np.ndarray, list[int], Cells]:
        found = scene(number, self.split, self.seed)
        text = caption_of(found, random.Random(number), detail=number % 2 == 0)
        return np.asarray(draw(found, SIDE)), self.ids(text), cell_labels(found, SIDE, grid())

    def ids(self, text: str) -> list[int]:
        """A text as open_clip's text tower takes it: the end mark has the highest id."""
        limit = CLIP["text_cfg"]["context_length"] - 1
        return [*self.pieces.encode(text)[:limit], CLIP["text_cfg"]["vocab_size"] - 1]


def grid() -> int:
    """Patch tokens along a side."""
    return SIDE // CLIP["vision_cfg"]["patch_size"]


def pixels_of(pictures: list[np.ndarray]) -> Tensor:
    """`[n, 3, S, S]`, normalised as CLIP's are."""
    stacked = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    return ((stacked - mean) / std).contiguous(memory_format=torch.channels_last)


def collate(examples: list[tuple[np.ndarray, list[int], Cells]]) -> dict[str, Tensor]:
    pictures, texts, truths = zip(*examples, strict=True)
    return {"pixels": pixels_of(list(pictures)), "texts": padded(texts), **stacked(truths)}


def stacked(truths: Sequence[Cells]) -> dict[str, Tensor]:
    """The labels of several pictures, field by field."""
    fields = vars(truths[0])
    return {name: torch.from_numpy(np.stack([getattr(t, name) for t in truths])) for name in fields}


def shown_loss(shown: Tensor, truth: dict[str, Tensor]) -> Tensor:
    """Cross entropy of `shown [n, cells, len(CELL_CLASSES)]`; background cells weigh less."""
    weight = torch.where(truth["colour"] != NONE, 1.0, BACKGROUND_WEIGHT)
    each = cross_entropy(shown.flatten(0, 1), truth["shown"].flatten(), reduction="none")
    return (each.view_as(weight) * weight).sum() / weight.sum()


def masked_cross_entropy(outputs: Tensor, truth: Tensor) -> Tensor:
    """Cross entropy of `outputs [..., classes]` where `truth [...]` is not `NONE`; 0 if none is.

    A batch may have no word, where torch's own would be no number.
    """
    there = truth != NONE
    return cross_entropy(outputs[there], truth[there], reduction="sum") / max(1, int(there.sum()))


class Loss:
    """Contrastive loss, and cross entropy of what the cells show."""

    def __init__(self, model: SupervisedClip, device: torch.device) -> None:
        self.model, self.device = model, device
        self.contrast = open_clip.ClipLoss()
        self.position_codes = torch.from_numpy(position_codes(grid())).to(device)

    def __call__(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], int]:
        batch = {name: value.to(self.device) for name, value in batch.items()}
        images, texts, outputs = self.model(batch["pixels"], batch["texts"])
        scale = self.model.clip.logit_scale.exp().clamp(max=100)
        contrast = self.contrast(images, texts.float(), scale)
        shown, colour, letter, box, place = parts(outputs.float())
        things = batch["colour"] != NONE
        show = shown_loss(shown, batch)
        hue, read = (
            masked_cross_entropy(colour, batch["colour"]),
            masked_cross_entropy(letter, batch["letter"]),
        )
        near = (box - batch["box"]).abs()[things].mean()
        where = (place - self.position_codes).square().mean()
        loss = CONTRAST * contrast + SHOW * show + COLOUR * hue + LETTER * read
        loss = loss + BOX * near + PLACE * where
        right = (shown.argmax(-1) == batch["shown"])[things].float().mean()
        values = {"contrast": contrast, "shown": show, "colour": hue, "letter": read}
        values |= {"box": near, "place": where}
        logged = {name: value.item() for name, value in values.items()}
        return loss, {**logged, "right": right.item()}, outputs.shape[0] * outputs.shape[1]


def parts(outputs: Tensor) -> tuple[Tensor, ...]:
    """The heads' output, by what it is about."""
    return outputs.split(HEADS, dim=-1)


def _open_clip_config() -> dict[str, Any]:
    vision = {key: value for key, value in CLIP["vision_cfg"].items() if key != STEM}
    return {**CLIP, "vision_cfg": vision}


def write_clip(model: SupervisedClip, folder: Path) -> None:
    """`clip.json` and `clip.safetensors`, batch norms folded into the stem's convolutions."""
    tensors = {n: v for n, v in model.clip.state_dict().items() if ".conv1." not in n}
    stem = folded(model.clip.visual.conv1)
    tensors |= {f"visual.conv1.{name}": value for name, value in stem.state_dict().items()}
    with replacing(folder / "clip.safetensors") as path:
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path
        )
    with replacing(folder / "clip.json") as path:
        path.write_text(json.dumps(CLIP, indent=1))


def folded(stem: nn.Sequential) -> nn.Sequential:
    """The same stem for inference: each batch norm in the convolution before it."""
    modules: list[nn.Module] = []
    for module in stem:
        if isinstance(module, nn.BatchNorm2d):
            before = modules.pop()
            assert isinstance(before, nn.Conv2d)
            module = torch.nn.utils.fuse_conv_bn_eval(before.eval(), module.eval())
        modules.append(module)
    return nn.Sequential(*modules)


@torch.no_grad()
def scores(
    model: SupervisedClip, pictures: Pictures, workers: int, count: int = 1024, size: int = 128
) -> dict[str, float]:
    """Accuracy on the validation split.

    Returns:
        Accuracies. `cells`, `letters`: of cells that show things and words; `retrieval`: of the
        caption among 128; `zero_shot`: of the kind, by "a dog", in pictures of one kind.
    """
    model.eval()
    right: dict[str, list[float]] = {"cells": [], "letters": [], "retrieval": [], "zero_shot": []}
    kinds = of_category()
    names = padded(pictures.ids(f"The picture shows {a(kind.name)}.") for kind in kinds)
    device = next(model.parameters()).device
    classes = model.clip.encode_text(names.to(device), normalize=True)
    for made in batches(pictures, collate, range(count), size, workers):
        batch = {name: value.to(device) for name, value in made.items()}
        images, texts, outputs = model(batch["pixels"], batch["texts"])
        shown, _, letter, *_ = parts(outputs)
        things, words = batch["colour"] != NONE, batch["letter"] != NONE
        right["cells"] += (shown.argmax(-1) == batch["shown"])[things].float().tolist()
        right["letters"] += (letter.argmax(-1) == batch["letter"])[words].float().tolist()
        found = (images @ texts.T).argmax(-1)
        right["retrieval"] += (found == torch.arange(len(images), device=device)).float().tolist()
        named = (images @ classes.T).argmax(-1)
        for one, truth in zip(named.tolist(), batch["shown"], strict=True):
            there = {CELL_CLASSES[i] for i in truth.tolist()} & {k.name for k in kinds}
            if len(there) == 1:
                right["zero_shot"].append(float(kinds[one].name in there))
    return {name: sum(values) / max(1, len(values)) for name, values in right.items()}


def padded(texts: Iterable[list[int]]) -> Tensor:
    """Texts as open_clip's text tower takes them, `[n, context_length]`."""
    length = CLIP["text_cfg"]["context_length"]
    return torch.tensor([text + [0] * (length - len(text)) for text in texts])


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stage("tower", steps=1800, batch=64, rate=2e-3, of="Pictures")
def command(folder: Path, plan: Plan, seed: int) -> None:
    """Train the vision tower into FOLDER, going on where it was."""
    torch.manual_seed(seed)
    device = this_device()
    model = SupervisedClip().to(device)
    tokenizer = folder / "llama" / "tokenizer.model"
    pictures = Pictures(tokenizer, seed=seed)
    train(plan, model, pictures, collate, Loss(model, device), lambda name: ".resblocks." in name)
    found = scores(model, Pictures(tokenizer, "validation", seed), plan.workers)
    write_clip(model.cpu(), folder)
    report_scores(found, folder / "clip-scores.json")


main = entry_point(command)

if __name__ == "__main__":
    main()
