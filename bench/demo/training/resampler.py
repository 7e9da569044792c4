"""The demo's resampler, trained with labels of cells before it is trained with text.

Contract: `python -m bench.demo.training.resampler FOLDER` needs CLIP in FOLDER and leaves
`resampler.safetensors` there, under OpenFlamingo's names, with the teacher beside it. Latent i
learns to describe cell i of a grid: what it shows, its box, counts of the same look and their
positions, and a word's letters. From captions alone this takes many times as many pictures. The
tower is trained along, and `clip.safetensors` is written again.
"""

from __future__ import annotations

import math
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from bench.demo.draw import draw
from bench.demo.training.cells import (
    CELL_CLASSES,
    COLOURS,
    LETTERS,
    LONGEST_WORD,
    NONE,
    Cells,
    cell_labels,
)
from bench.demo.training.loop import Plan, batches, report_scores, stage, this_device, train
from bench.demo.training.scenes import scene
from bench.demo.training.sizes import DEPTH, HEADS, LATENTS, SIDE
from bench.demo.training.tower import masked_cross_entropy, pixels_of, shown_loss, stacked
from bench.demo.world import third_of
from lite.cli import entry_point
from lite.files import replacing
from qlora.checkpoints.clip import read_clip
from qlora.model.connectors.perceiver import Perceiver
from qlora.model.encoders.clip import ClipEncoder
from qlora.model.model import assign

PERCEIVER, TEACHER = "perceiver.", "teacher."
GRID = math.isqrt(LATENTS)
# Classes of a count; no scene has so many things.
COUNTS = 9
SPELLINGS = len(LETTERS) + 1
# One-hot band (a third of the picture's rows or columns) of each row or column of the grid.
BANDS = torch.eye(3)[[third_of((i + 0.5) / GRID) for i in range(GRID)]]
# Classes of a count in a band.
BAND_COUNTS = 5
HEADS_WIDTHS = (
    *(len(CELL_CLASSES), len(COLOURS), COUNTS, COUNTS, 6 * BAND_COUNTS),
    *(LONGEST_WORD * SPELLINGS, 1, 4),
)
# Weights of the losses: class, colour, count of the kind, count of the look, the latter by band,
# spelling, whether a thing's centre is in the cell, box.
SHOW, COLOUR, ALIKE, TWINS, BANDED, SPELL, MIDDLE, BOX = 1.0, 0.4, 0.5, 0.5, 1.5, 1.0, 1.0, 2.0

Truth = dict[str, Tensor]


class Teacher(nn.Module):
    """Linear heads that predict the labels of each latent's cell, and their loss."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, sum(HEADS_WIDTHS))

    def forward(self, latents: Tensor, truth: Truth) -> tuple[Tensor, dict[str, float]]:
        """
        Args:
            latents: `[n, LATENTS, D]`.
            truth: the fields of `Cells`, each with a first axis of n pictures.

        Returns:
            The loss, and figures to log: each part of it, and accuracies on the cells of things and
            the letters of words.
        """
        outputs = self.heads(latents).float().split(HEADS_WIDTHS, dim=-1)
        shown, colour, alike, twins, banded, spelled, centre, box = outputs
        spelled = spelled.unflatten(-1, (LONGEST_WORD, SPELLINGS))
        things, words = truth["colour"] != NONE, truth["spelled"] != NONE
        losses = {
            "shown": SHOW * shown_loss(shown, truth),
            "colour": COLOUR * masked_cross_entropy(colour, truth["colour"]),
            "alike": ALIKE * masked_cross_entropy(alike, truth["alike"]),
            "twins": TWINS * masked_cross_entropy(twins, truth["twins"]),
            "banded": BANDED
            * masked_cross_entropy(banded.unflatten(-1, (6, BAND_COUNTS)), in_bands(truth)),
            "spelled": SPELL * masked_cross_entropy(spelled, truth["spelled"]),
            "centre": MIDDLE
            * binary_cross_entropy_with_logits(centre[..., 0], truth["centre"].float()),
            "box": BOX * (box - truth["box"]).abs()[things].mean(),
        }
        named = (shown.argmax(-1) == truth["shown"])[things].float()
        counted = (alike.argmax(-1) == truth["alike"])[things].float()
        read = (spelled.argmax(-1) == truth["spelled"])[words].float()
        right = {"named": named, "counted": counted, "read": read}
        figures = {name: value.item() for name, value in losses.items()}
        figures |= {name: value.mean().item() for name, value in right.items() if len(value)}
        return torch.stack([*losses.values()]).sum(), figures


def in_bands(truth: Truth) -> Tensor:
    """How many things of each cell's look have their centre in each band, rows before columns.

    These counts are small and add up to the whole count, of which numbers above three are learned
    far sooner so.

    Returns:
        `[n, cell_labels, 6]`; `NONE` for the background.
    """
    look = truth["shown"] * len(COLOURS) + truth["colour"]
    twins = (look[:, :, None] == look[:, None, :]) & truth["centre"][:, None, :]
    where = twins.unflatten(-1, (GRID, GRID)).float()
    bands = BANDS.to(where.device)
    found = torch.cat((where.sum(-1) @ bands, where.sum(-2) @ bands), dim=-1).long()
    return found.clamp(max=BAND_COUNTS - 1).masked_fill(truth["colour"][..., None] == NONE, NONE)


class VisionModel(nn.Module):
    """The tower, the resampler, and its teacher."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        clip = read_clip(str(folder / "clip.json"), str(folder / "clip.safetensors"))
        width = clip.config["vision_cfg"]["width"]
        self.encoder = ClipEncoder(clip.config)
        self.tower = self.encoder.build()
        for name, _ in [*self.tower.named_parameters()]:
            assign(self.tower, name, clip.tensors[name].float())
        self.perceiver = Perceiver(width, LATENTS, DEPTH, HEADS).build()
        self.teacher = Teacher(width)

    def forward(self, pixels: Tensor, truth: Truth) -> tuple[Tensor, dict[str, float]]:
        patches, _ = self.encoder.encode(self.tower, pixels)
        return self.teacher(self.perceiver(patches), truth)


class Pictures(torch.utils.data.Dataset[tuple[np.ndarray, Cells]]):
    """Picture number i, and the labels of its cells."""

    def __init__(self, split: str = "train", seed: int = 0) -> None:
        self.split, self.seed = split, seed

    def __getitem__(self, number: int) -> tuple[np.ndarray, Cells]:
        found = scene(number, self.split, self.seed)
        return np.asarray(draw(found, SIDE)), cell_labels(found, SIDE, GRID)


def collate(examples: list[tuple[np.ndarray, Cells]]) -> dict[str, Tensor]:
    pictures, truths = zip(*examples, strict=True)
    return {"pixels": pixels_of(list(pictures)), **stacked(truths)}


@torch.no_grad()
def scores(
    model: VisionModel, pictures: Pictures, workers: int, count: int = 1024, size: int = 128
) -> dict[str, float]:
    """Accuracy on cells, counts and letters."""
    found: dict[str, list[float]] = {"named": [], "counted": [], "read": []}
    device = next(model.parameters()).device
    for batch in batches(pictures, collate, range(count), size, workers):
        truth = {name: value.to(device) for name, value in batch.items()}
        _, figures = model(truth.pop("pixels"), truth)
        for name, values in found.items():
            values.append(figures[name])
    return {name: sum(values) / len(values) for name, values in found.items()}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@stage("resampler", steps=700, batch=64, rate=2e-3, of="Pictures")
def command(folder: Path, plan: Plan, seed: int) -> None:
    """Train tower and resampler into FOLDER, going on where it was."""
    torch.manual_seed(seed)
    device = this_device()
    model = VisionModel(folder).to(device)

    def loss_of(batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float], int]:
        truth = {name: value.to(device) for name, value in batch.items()}
        loss, figures = model(truth.pop("pixels"), truth)
        return loss, figures, len(truth["shown"]) * LATENTS

    matrices = "perceiver.layers.", ".resblocks."
    train(
        plan,
        model,
        Pictures(seed=seed),
        collate,
        loss_of,
        lambda name: any(part in name for part in matrices),
    )
    found = scores(model, Pictures("validation", seed), plan.workers)
    model.cpu()
    _rewrite_clip(folder / "clip.safetensors", model.tower)
    parts = model.state_dict().items()
    kept = {n: v.contiguous() for n, v in parts if n.startswith((PERCEIVER, TEACHER))}
    with replacing(folder / "resampler.safetensors") as path:
        save_file(kept, path)
    report_scores(found, folder / "resampler-scores.json")


def _rewrite_clip(path: Path, tower: nn.Module) -> None:
    """The same file with the tower's tensors as they are now."""
    learnt = {f"visual.{n}": p.detach().contiguous() for n, p in tower.named_parameters()}
    tensors = load_file(path) | learnt
    with replacing(path) as partial:
        save_file(tensors, partial)


main = entry_point(command)

if __name__ == "__main__":
    main()
