"""What a precision costs in quality: bundles of one model compared on given text and images.

Contract: the first bundle is the reference. Each text is scored in windows as the bundles' own
tokenizer cuts it, each window by itself and, with images, after a prompt that shows them; every
position of the text counts, of the prompt none. Three figures, as llama.cpp's perplexity tool gives
them: the ratio of perplexities, the mean KL divergence in nats with its standard error, and the
share of positions where both find the same token likeliest.

Example: lite-bench quality bundle-fp32 bundle-int8 bundle-int4 --text wiki.txt --image park.jpg
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import lite
from bench.report import about, write_report
from export.proof import kl_divergence
from lite.cli import run, say
from lite.errors import BadInput

SHOW = "<image>"


@dataclass(frozen=True)
class Window:
    """Ids to score, how many of them are prompt, and an image for each `<image>` among these."""

    ids: list[int]
    prompt: int
    images: tuple[str, ...]

    def scored(self, model: lite.Model) -> tuple[np.ndarray, np.ndarray]:
        """Logits that predict the text's tokens `[T, vocab]`, and these tokens `[T]`."""
        logits = model.score(self.ids, list(self.images))
        return logits[self.prompt - 1 : -1], np.array(self.ids[self.prompt :])


@dataclass
class Comparison:
    """Sums over all positions of one bundle against the reference."""

    divergences: list[np.ndarray]
    losses: list[np.ndarray]
    reference_losses: list[np.ndarray]
    same: list[np.ndarray]

    def add(self, reference: np.ndarray, logits: np.ndarray, targets: np.ndarray) -> None:
        """Count the positions of one window."""
        self.divergences.append(kl_divergence(reference, logits))
        self.reference_losses.append(_losses(reference, targets))
        self.losses.append(_losses(logits, targets))
        self.same.append(reference.argmax(-1) == logits.argmax(-1))

    def figures(self) -> dict[str, float]:
        """The three figures, with what they are made of."""
        divergence = np.concatenate(self.divergences)
        loss, reference = np.concatenate(self.losses), np.concatenate(self.reference_losses)
        return {
            "positions": divergence.size,
            "perplexity": float(np.exp(loss.mean())),
            "reference_perplexity": float(np.exp(reference.mean())),
            "perplexity_ratio": float(np.exp(loss.mean() - reference.mean())),
            "mean_kl": float(divergence.mean()),
            "mean_kl_error": float(divergence.std() / np.sqrt(divergence.size)),
            "largest_kl": float(divergence.max()),
            "same_top": float(np.concatenate(self.same).mean()),
        }


def windows(
    model: lite.Model, texts: list[str], images: list[str], length: int
) -> Iterator[Window]:
    """Cut texts into windows; where there are images, each window follows one of them in turn."""
    shown = 0
    for text in texts:
        ids = model.tokenizer.encode([text])
        begin, ids = ids[:1], ids[1:]
        for at in range(0, len(ids), length):
            part = ids[at : at + length]
            if not images:
                yield Window(begin + part, 1, ())
                continue
            prompt = [*begin, model.bundle.manifest.special_ids[SHOW]]
            yield Window(prompt + part, len(prompt), (images[shown % len(images)],))
            shown += 1


def compare(
    reference: lite.Model, others: dict[str, lite.Model], cut: list[Window]
) -> dict[str, dict[str, float]]:
    """The figures of each other model."""
    found = {name: Comparison([], [], [], []) for name in others}
    for window in cut:
        exact, targets = window.scored(reference)
        for name, model in others.items():
            found[name].add(exact, window.scored(model)[0], targets)
    return {name: comparison.figures() for name, comparison in found.items()}


@click.command(name="quality")
@click.argument("reference", type=click.Path(path_type=Path))
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--text",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="UTF-8 text; several are scored one after the other.",
)
@click.option("--image", "images", multiple=True, metavar="FILE", help="Shown before windows.")
@click.option("--window", type=click.IntRange(8), default=256, show_default=True, help="Tokens.")
@click.option("--limit", type=click.IntRange(1), help="Windows at most.")
@click.option("--threads", type=click.IntRange(1), help="Worker threads.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of a table.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def command(
    reference: Path,
    bundles: tuple[Path, ...],
    files: tuple[Path, ...],
    images: tuple[str, ...],
    window: int,
    limit: int | None,
    threads: int | None,
    as_json: bool,
    output: Path | None,
) -> None:
    """Compare BUNDLES with REFERENCE, a more exact bundle of the same model."""
    exact = lite.load(reference, threads=threads)
    others = {str(path): lite.load(path, threads=threads) for path in bundles}
    for path, model in others.items():
        if _identity(model) != _identity(exact):
            raise BadInput(f"{path} is not of the same model as {reference}; compare precisions.")
    texts = [path.read_text(encoding="utf-8") for path in files]
    cut = list(windows(exact, texts, list(images), window))[:limit]
    if not cut:
        raise BadInput("The texts are empty; give one with words in it.")
    say(f"Scoring {sum(len(w.ids) for w in cut)} tokens in {len(cut)} windows")
    figures = compare(exact, others, cut)
    report = {
        **about(("onnxruntime", "numpy")),
        "reference": str(reference),
        "precision": {str(p): m.bundle.manifest.precision for p, m in others.items()},
        "bundles": figures,
    }
    if output:
        write_report(report, output)
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        print_table(figures)


def _identity(model: lite.Model) -> tuple[Any, ...]:
    """What bundles of one model have in common, whatever their precision."""
    manifest = model.bundle.manifest
    tokenizer = manifest.files["tokenizer.json"]
    return manifest.sizes, manifest.attend, manifest.special_ids, tokenizer


def _losses(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Negative log-likelihood of each target, in nats; a token that has no logit counts as none."""
    spoken = targets < logits.shape[1]
    shifted = logits[spoken].astype(np.float64)
    shifted -= shifted.max(-1, keepdims=True)
    normal = np.log(np.exp(shifted).sum(-1))
    return np.asarray(normal - shifted[np.arange(spoken.sum()), targets[spoken]])


def print_table(figures: dict[str, dict[str, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    grid = Table("", "perplexity ratio", "mean KL", "same top token", "positions", box=None)
    for name, f in figures.items():
        kl = f"{f['mean_kl']:.6f} ± {f['mean_kl_error']:.6f}"
        share = f"{f['same_top']:.2%}"
        grid.add_row(name, f"{f['perplexity_ratio']:.5f}", kl, share, str(f["positions"]))
    Console().print(grid)


if __name__ == "__main__":
    run(command)
