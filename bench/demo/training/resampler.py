"""The demo's resampler, taught what is where before any text is told of it.

Contract: `python -m bench.demo.training.resampler FOLDER` needs CLIP in FOLDER and leaves
`resampler.safetensors` there, under OpenFlamingo's names, with the teacher beside it. Latent i
learns to tell cell i of a grid: what is there, where it ends, how many there are of it and where,
and a word's letters. Through captions alone the same takes many times as many pictures. The tower
learns from that as well, and `clip.safetensors` is written again.
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
    COLOURS,
    LETTERS,
    LONGEST_WORD,
    NONE,
    SHOWN,
    Cells,
    cells,
)
from bench.demo.training.loop import Plan, batches, stage, tell, this_device, train
from bench.demo.training.scenes import scene
from bench.demo.training.sizes import DEPTH, HEADS, LATENTS, SIDE
from bench.demo.training.tower import pixels_of, shown_loss, stacked, told_loss
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
# The band, a third of the picture's rows or columns, that a row or column of the grid is in.
BANDS = torch.eye(3)[[third_of((i + 0.5) / GRID) for i in range(GRID)]]
# Classes of a count in a band.
FEW = 5
HEADS_WIDTHS = (
    *(len(SHOWN), len(COLOURS), COUNTS, COUNTS, 6 * FEW),
    *(LONGEST_WORD * SPELLINGS, 1, 4),
)
# Of the loss: what a cell shows, its colour, how many are alike, and in colour too, how many of
# these are in each band, spelling, middles, edges.
SHOW, COLOUR, ALIKE, TWINS, BANDED, SPELL, MIDDLE, BOX = 1.0, 0.4, 0.5, 0.5, 1.5, 1.0, 1.0, 2.0

Truth = dict[str, Tensor]


class Teacher(nn.Module):
    """Heads that say what each latent shows, and how far that is from the truth."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = nn.Linear(width, sum(HEADS_WIDTHS))

    def forward(self, latents: Tensor, truth: Truth) -> tuple[Tensor, dict[str, float]]:
        """
        Args:
            latents: `[n, LATENTS, D]`.
            truth: the fields of `Cells`, each with a first axis of n pictures.

        Returns:
            The loss, and figures to log: each part of it, and which part of the cells of things and
            of the letters of words are told right.
        """
        said = self.heads(latents).float().split(HEADS_WIDTHS, dim=-1)
        shown, colour, alike, twins, banded, spelled, centre, box = said
        spelled = spelled.unflatten(-1, (LONGEST_WORD, SPELLINGS))
        things, words = truth["colour"] != NONE, truth["spelled"] != NONE
        losses = {
            "shown": SHOW * shown_loss(shown, truth),
            "colour": COLOUR * told_loss(colour, truth["colour"]),
            "alike": ALIKE * told_loss(alike, truth["alike"]),
            "twins": TWINS * told_loss(twins, truth["twins"]),
            "banded": BANDED * told_loss(banded.unflatten(-1, (6, FEW)), in_bands(truth)),
            "spelled": SPELL * told_loss(spelled, truth["spelled"]),
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
    """How many things of each cell's look have their middle in each band, rows before columns.

    Whoever can tell these few, which are small, can add them up: a number above three is learnt
    far sooner so.

    Returns:
        `[n, cells, 6]`; `NONE` for the background.
    """
    look = truth["shown"] * len(COLOURS) + truth["colour"]
    twins = (look[:, :, None] == look[:, None, :]) & truth["centre"][:, None, :]
    where = twins.unflatten(-1, (GRID, GRID)).float()
    bands = BANDS.to(where.device)
    found = torch.cat((where.sum(-1) @ bands, where.sum(-2) @ bands), dim=-1).long()
    return found.clamp(max=FEW - 1).masked_fill(truth["colour"][..., None] == NONE, NONE)


class Seeing(nn.Module):
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
    """Picture number i, and the truth of its cells."""

    def __init__(self, split: str = "train", seed: int = 0) -> None:
        self.split, self.seed = split, seed

    def __getitem__(self, number: int) -> tuple[np.ndarray, Cells]:
        found = scene(number, self.split, self.seed)
        return np.asarray(draw(found, SIDE)), cells(found, SIDE, GRID)


def collate(examples: list[tuple[np.ndarray, Cells]]) -> dict[str, Tensor]:
    pictures, truths = zip(*examples, strict=True)
    return {"pixels": pixels_of(list(pictures)), **stacked(truths)}


@torch.no_grad()
def scores(
    model: Seeing, pictures: Pictures, workers: int, count: int = 1024, size: int = 128
) -> dict[str, float]:
    """Which part of cells, counts and letters is told right."""
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
    model = Seeing(folder).to(device)

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
    tell(found, folder / "resampler-scores.json")


def _rewrite_clip(path: Path, tower: nn.Module) -> None:
    """The same file with the tower's tensors as they are now."""
    learnt = {f"visual.{n}": p.detach().contiguous() for n, p in tower.named_parameters()}
    tensors = load_file(path) | learnt
    with replacing(path) as partial:
        save_file(tensors, partial)


main = entry_point(command)

if __name__ == "__main__":
    main()
