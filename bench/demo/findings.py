"""Ablations on the demo model, after the papers: data mix, adapters and precision against skills.

Contract: for each variant of a study the aligned model that `make demo` left in FOLDER is tuned by
`qlora-train`, exported in fp32 and scored, with the same steps, seeds and questions; only
what a variant names differs. Existing adapters and scores are kept, so an interrupted run can be
continued.

    mix      pictures and text together, each alone, and together under two templates
             (Multimodal-GPT, arXiv 2305.04790: RQ1 and RQ4)
    short    a part of the answers in a word or two (the same paper, on the quality of data)
    adapter  LoRA on self-attention, then cross-attention, then feed-forward too; full rank, which
             is full fine-tuning of these matrices; a base that is not in NF4 (arXiv 2305.14314)
    precision
             the tuned model itself in fp32, int8 and int4, with how far predictions move

Example: python -m bench.demo.findings mix
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bench.demo.data import Job, write
from bench.demo.questions import SKILLS
from bench.demo.training.sizes import LLAMA
from bench.report import about, new_figure, write_report
from lite.cli import run, say
from lite.errors import LiteError

LIBRARIES = ("mmgpt-lite", "torch", "transformers", "peft", "bitsandbytes", "onnxruntime")
SELF = ("q_proj", "k_proj", "v_proj", "o_proj")
CROSS = ("to_q", "to_kv", "to_out")
FEED = ("gate_proj", "up_proj", "down_proj", "ff.1", "ff.3")
PICTURES = (
    "{path: train/visual.json, images: train/images}",
    "{path: train/pairs.json, images: train/images}",
)
TEXT = "{path: train/instructions.json}"
OTHER_TEMPLATE = "{path: train/instructions.json, template: llava_v1}"


@dataclass(frozen=True)
class Variant:
    """One way to tune.

    Attributes:
        name: of its folder.
        sets: data sets.
        settings: of the recipe, that differ.
        short: part of the answers that are a word or two.
    """

    name: str
    sets: tuple[str, ...] = (*PICTURES, TEXT)
    settings: tuple[str, ...] = ()
    short: float = 0.0


def _targets(name: str, *targets: str) -> Variant:
    return Variant(name, settings=(f"adapter.targets=[{', '.join(targets)}]",))


def _rank(name: str, rank: int) -> Variant:
    return Variant(name, settings=(f"adapter.rank={rank}", f"adapter.alpha={rank}"))


# Every other variant differs from it in one thing; each study has its own name for it.
BASELINE = Variant("usual")
STUDIES: dict[str, dict[str, Variant]] = {
    "mix": {
        "pictures and text": BASELINE,
        "pictures only": Variant("pictures", PICTURES),
        "text only": Variant("text", (TEXT,)),
        "two templates": Variant("templates", (*PICTURES, OTHER_TEMPLATE)),
    },
    "short": {
        "0 % short": BASELINE,
        "5 % short": Variant("short-5", short=0.05),
        "20 % short": Variant("short-20", short=0.2),
        "50 % short": Variant("short-50", short=0.5),
    },
    "adapter": {
        "self-attention": _targets("self", *SELF),
        "and cross-attention": _targets("cross", *SELF, *CROSS),
        "and feed-forward": BASELINE,
        "full rank": _rank("full", min(LLAMA["hidden_size"], 256)),
        "unquantized base": Variant("unquantized", settings=("model.base=none",)),
    },
}
# The scores of a bundle that a report has.
REPORTED = "mean", "skills", "bytes", "difference"
PRECISION, PRECISIONS = "precision", ("fp32", "int8", "int4")
# A third of the demo's batch, and a rank well below full rank.
SHORT_RUN = (
    "training.batch=12",
    "training.text_batch=4",
    "training.accumulate=1",
    "adapter.rank=16",
    "adapter.alpha=16",
)


@click.command(name="findings")
@click.argument("study", type=click.Choice([*STUDIES, PRECISION]))
@click.option(
    "--folder", default=Path("runs/demo"), type=click.Path(path_type=Path), help="Of `make demo`."
)
@click.option("--steps", default=200, show_default=True, help="Optimizer steps of each variant.")
@click.option("--examples", default=500, show_default=True, help="Of each skill, to train on.")
@click.option("--each", default=60, show_default=True, help="Of each skill, to score.")
@click.option(
    "--compute",
    type=click.Choice(["bfloat16", "float32"]),
    default="bfloat16",
    show_default=True,
    help="Type of activations.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file, with a PNG.")
def command(
    study: str,
    folder: Path,
    steps: int,
    examples: int,
    each: int,
    compute: str,
    output: Path | None,
) -> None:
    """Tune and score each variant of STUDY."""
    settings: dict[str, Any] = {"each": each}
    if study == PRECISION:
        found = _precisions(folder, each)
    else:
        settings |= {"steps": steps, "examples": examples, "compute": compute}
        found = {name: _tuned(one, folder, **settings) for name, one in STUDIES[study].items()}
    report = {**about(LIBRARIES), "study": study, **settings, "variants": found}
    path = output or Path("bench/results") / f"findings-{study}.json"
    write_report(report, path)
    plot(report, path.with_suffix(".png"))
    say(f"{path}")


def _tuned(
    variant: Variant, folder: Path, steps: int, examples: int, each: int, compute: str
) -> dict[str, Any]:
    """Figures of one variant."""
    home = folder / "findings" / f"{variant.name}-{steps}"
    scores = home / "scores.json"
    if not scores.exists():
        say(f"{variant.name}: tuning and scoring")
        _tune(home, folder, variant, steps, examples, compute)
        bundle = home / "bundle"
        _export(bundle, folder, home / "adapter", "fp32")
        _python("bench.demo.skills", "-m", bundle, "--each", each, "--json", scores)
    found = json.loads(scores.read_text(encoding="utf-8"))
    return _reported(found)


def _precisions(folder: Path, each: int) -> dict[str, Any]:
    """Figures of the model that `make demo` tuned, in each precision."""
    bundles = [folder / "findings" / name for name in PRECISIONS]
    for bundle in bundles:
        _export(bundle, folder, folder / "adapter", bundle.name)
    scores = folder / "findings" / "precisions.json"
    first, *others = bundles
    compared = [f"--compare={other}" for other in others]
    _python("bench.demo.skills", "-m", first, *compared, "--each", each, "--json", scores)
    found = json.loads(scores.read_text(encoding="utf-8"))
    return {
        bundle.name: _reported(result) | _quantization_error(bundle)
        for bundle, result in zip(bundles, (found, *found["compared"]), strict=True)
    }


def _reported(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: scores[key] for key in REPORTED if key in scores}


def _quantization_error(bundle: Path) -> dict[str, float]:
    """How far a quantized bundle's predictions are from fp32's, as its export has proved."""
    proofs = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))["proofs"]
    return {one["measure"]: one["value"] for one in proofs if one["against"] == "ONNX fp32"}


def _export(bundle: Path, folder: Path, adapter: Path, precision: str) -> None:
    """A bundle of the aligned model with this adapter."""
    parts = [f"--{part.replace('_', '-')}={path}" for part, path in _parts(folder).items()]
    wanted = (*parts, f"--lora={adapter}", "--attend=preceding", f"--precision={precision}")
    _python("export.commands.export", *wanted, "-o", bundle, "--force")


def _tune(
    home: Path, folder: Path, variant: Variant, steps: int, examples: int, compute: str
) -> None:
    """Train a variant's adapter into `home`, where it is not there yet."""
    if (home / "adapter").exists():
        return
    data = _data(folder, variant.short, examples)
    settings = settings_of(variant, home, folder, data, steps, compute)
    resume = ("--resume",) if (home / "checkpoints").exists() else ()
    _python("qlora.commands.train", "demo", *settings, *resume)


def settings_of(
    variant: Variant, home: Path, folder: Path, data: Path, steps: int, compute: str
) -> list[str]:
    """What differs from the recipe `demo`."""
    settings = [f"model.{part}={path}" for part, path in _parts(folder).items()]
    settings += [f"data.root={data}", f"data.sets=[{', '.join(variant.sets)}]", *SHORT_RUN]
    settings += [f"model.compute={compute}", f"training.steps={steps}", "training.warmup=10"]
    settings += [f"evaluation.every={steps}", "evaluation.answers=0"]
    return [*settings, *variant.settings, f"output={home}"]


def _parts(folder: Path) -> dict[str, Path]:
    return {
        "llama": folder / "llama",
        "clip": folder / "clip.json",
        "clip_weights": folder / "clip.safetensors",
        "flamingo": folder / "flamingo.safetensors",
    }


def _data(folder: Path, short: float, examples: int) -> Path:
    """Data with that part of short answers; pictures are those of the demo's own data."""
    data = folder / "findings" / f"data-{short:g}-{examples}"
    images, drawn = data / "train" / "images", folder / "data" / "train" / "images"
    if not images.exists() and drawn.exists():
        images.parent.mkdir(parents=True, exist_ok=True)
        images.symlink_to(os.path.relpath(drawn, images.parent))
    if not (data / "train" / "instructions.json").exists():
        write(data, Job("train", dict.fromkeys(SKILLS, examples), short=short))
    return data


def _python(module: str, *arguments: object) -> None:
    """Run a command of this package. Raises `LiteError` where it fails."""
    words = [sys.executable, "-m", module, *map(str, arguments)]
    if subprocess.run(words, check=False).returncode:
        raise LiteError(f"{' '.join(words[1:])} failed; its output is above.")


def plot(report: dict[str, Any], path: Path) -> None:
    """Scores by skill, and the length of replies, as bars, where matplotlib is installed."""
    figure = new_figure(11, 6)
    if figure is None:
        return
    variants = report["variants"]
    scores, words = figure.subplots(2, 1)
    wide = 0.8 / len(variants)
    for number, (name, found) in enumerate(variants.items()):
        at = [i + wide * number for i in range(len(SKILLS))]
        scores.bar(at, [found["skills"][s]["score"] for s in SKILLS], wide, label=name)
        words.bar(at, [found["skills"][s]["reply_words"] for s in SKILLS], wide)
    for axes, title in ((scores, "right answers, %"), (words, "words of a reply")):
        axes.set_title(title, fontsize=9)
        axes.set_xticks([i + 0.4 for i in range(len(SKILLS))], [*SKILLS])
    figure.legend(*scores.get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    run(command)
