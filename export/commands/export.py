"""`lite-export`: checkpoints to a bundle.

Contract: options to checkpoints to `write_bundle`; prints the chain of proofs on stdout, as a table
or as JSON, and everything else on stderr.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import click

from export.precision import PRECISIONS, ROLES, SENSITIVE, Precision
from export.precision import precision as choose_precision
from lite.bundle.attend import RULES
from lite.bundle.manifest import Manifest
from lite.cli import entry_point, say, version_option
from lite.errors import BadInput
from qlora.families.models import MODELS, NAMES, TINY, Checkpoints

if TYPE_CHECKING:
    from rich.table import Table

    from export.drift import Drift
    from export.merge_base import Merge
    from export.proof import Proof
    from lite.bundle.bundle import Bundle

_MODELS = "\n".join(f"  {name:22}{model.licence}" for name, model in MODELS.items())

HELP = f"""
Make a bundle for lite-chat from checkpoints.

NAME is a published model, fetched from the hub (mmgpt-9b: 20 GB), or tiny, a
random model made on the spot that shows the commands and answers nonsense.
Without NAME, or to replace a part of it, name the checkpoints: paths, hub ids
(org/name, org/name/file) or addresses. CLIP is an open_clip model name and
pretrained tag, or a config file and a weights file (OpenAI's weights in a file
go with the name ViT-L-14-quickgelu).

--model is a folder with a whole model of another family, which is told from
its files: mPLUG-Owl, LLaVA, IDEFICS or Llama-3.2-Vision. Beside a LLaVA that
holds only what was trained (a projector, a LoRA), --llama is its language
model; --clip is the folder of its vision tower, if not the one that it names.

\b
Models, and the licences of their weights:
{_MODELS}

\b
Example: lite-export --llama llama-7b --flamingo checkpoint.pt \\
                     --lora mmgpt-lora.pt -o bundle
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False, type=click.Choice(NAMES), metavar="[NAME]")
@click.option("--model", metavar="DIR|HUB", help="Whole model of another family.")
@click.option("--llama", metavar="DIR|HUB", help="LLaMA folder.")
@click.option("--clip", metavar="NAME|FILE", help="CLIP model or config.  [default: ViT-L-14]")
@click.option("--clip-weights", metavar="TAG|FILE", help="CLIP weights.  [default: openai]")
@click.option("--flamingo", metavar="FILE|HUB", help="OpenFlamingo checkpoint.pt.")
@click.option("--lora", metavar="FILE|DIR|HUB", help="Multimodal-GPT LoRA file or PEFT folder.")
@click.option(
    "--merge-base",
    type=click.Choice(["auto", "nf4", "fp16"]),
    default="auto",
    show_default=True,
    help="What the LoRA is added to: NF4 weights as it was trained around, or the original ones; "
    "auto goes by the adapter folder's training.json.",
)
@click.option(
    "--attend",
    type=click.Choice(RULES),
    help="Which image text attends to, as the model was trained.  [default: following, or as the "
    "adapter folder says]",
)
@click.option(
    "--precision",
    type=click.Choice([*PRECISIONS]),
    default="int8",
    show_default=True,
    help="How the decoder's matrices are stored.",
)
@click.option(
    "--activations",
    type=click.Choice(["fp32", "fp16"]),
    help="What flows between them; fp16 is for GPUs.  [default: fp32; fp16 with --precision fp16]",
)
@click.option(
    "--block",
    type=click.Choice(["32", "64", "128"]),
    default="32",
    show_default=True,
    help="Values that share a scale; more are smaller and faster, and less exact.",
)
@click.option(
    "--keep-int8",
    multiple=True,
    type=click.Choice(ROLES),
    default=sorted(SENSITIVE),
    show_default=True,
    help="Layers of an int4 bundle that stay at 8 bits; may be repeated.",
)
@click.option(
    "--kv-cache",
    type=click.Choice(["fp32", "int8"]),
    default="fp32",
    show_default=True,
    help="How keys and values of past tokens are kept; int8 takes a quarter of the memory.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to make.",
)
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
@click.option(
    "--prove/--no-proof",
    default=True,
    show_default=True,
    help="Compare with torch, which needs memory to run the bundle; writing needs 4 GB at most.",
)
@click.option("--max-kl", type=float, help="Refuse a bundle whose KL divergence is larger.")
@click.option("--json", "as_json", is_flag=True, help="Print the proofs as JSON.")
@version_option
def command(
    name: str | None,
    precision: str,
    activations: str | None,
    block: str,
    keep_int8: tuple[str, ...],
    kv_cache: str,
    prove: bool,
    output: Path,
    force: bool,
    max_kl: float | None,
    merge_base: str,
    as_json: bool,
    **parts: str | None,
) -> None:
    if output.exists() and not force:  # before anything is downloaded
        raise BadInput(f"{output} exists already; choose another name or replace it with --force.")
    with ExitStack() as stack:
        named = _named(name, stack) if name else None
        merge = _merge(Checkpoints.with_parts(named, parts), parts["attend"], merge_base)
        changes: dict[str, Any] = {"kv_bits": 8 if kv_cache == "int8" else 32}
        if precision in ("int8", "int4"):
            changes |= {"block": int(block), "sensitive": frozenset(keep_int8)}
        if activations:
            changes["activations"] = int(activations.removeprefix("fp"))
        chosen = choose_precision(precision, **changes)
        manifest, drift = _export(merge, chosen, output, force, max_kl, prove)
    _report(manifest, drift, output, as_json)


def _named(name: str, stack: ExitStack) -> Checkpoints:
    from qlora.tiny.model import write_checkpoints

    if name != TINY:
        return MODELS[name].checkpoints
    say("Making a tiny model with random weights: it shows the commands and answers nonsense.")
    return write_checkpoints(Path(stack.enter_context(tempfile.TemporaryDirectory())))


def _merge(checkpoints: Checkpoints, attend: str | None, merge_base: str) -> Merge:
    from export.merge_base import choose, with_attend
    from qlora.checkpoints.training_facts import read_training_facts

    weights = checkpoints.read()
    facts = read_training_facts(weights.lora.path) if weights.lora else None
    return choose(with_attend(weights, facts, attend), facts, merge_base)


def _export(
    merge: Merge,
    chosen: Precision,
    output: Path,
    force: bool,
    max_kl: float | None,
    proved: bool,
) -> tuple[Manifest, Drift | None]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from export.bundle import write_bundle
    from export.drift import measure
    from export.verify import prove

    weights = merge.weights
    drift = None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Writing {chosen.name} weights", total=weights.parameters)

        def prove_with_progress(bundle: Bundle) -> list[Proof]:
            nonlocal drift
            if not proved:
                return []
            if merge.trained is not None:
                progress.update(task, description="Measuring the merge", total=None)
                drift = measure(merge)
            progress.update(task, description="Comparing with torch", total=None)
            return prove(bundle, weights, chosen, max_kl, drift.proofs() if drift else None)

        manifest = write_bundle(
            weights,
            output,
            chosen,
            prove_with_progress,
            force=force,
            wrote=lambda count: progress.advance(task, count),
        )
    return manifest, drift


def _report(manifest: Manifest, drift: Drift | None, output: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    size = sum(record.size for record in manifest.files.values())
    if as_json:
        report = {"bundle": str(output), "bytes": size, "proofs": manifest.proofs}
        click.echo(json.dumps(report | ({"drift": drift.to_json()} if drift else {})))
        return
    table = Table("step", "compared with", "measure", "value", "limit", box=None)
    for proof in manifest.proofs:
        limit = "" if proof["limit"] is None else f"{proof['limit']:.3g}"
        row = (proof["step"], proof["against"], proof["measure"], f"{proof['value']:.3g}", limit)
        table.add_row(*row)
    Console().print(table)
    if drift:
        Console().print(_drift_table(drift))
        say(drift.advice())
    parameters = manifest.sizes.parameters
    say(f"{output}: {parameters / 1e6:,.1f} M parameters, {size / 1e6:,.1f} MB.")
    say(f"Chat with it: lite-chat IMAGE -m {output}")


def _drift_table(drift: Drift) -> Table:
    """Median and worst of the adapted layers of each kind."""
    from rich.table import Table

    titles = ("NF4 merge", "fp16 merge", "NF4 error / delta")
    table = Table("layers: median, worst", *titles, box=None)
    for kind, layers in drift.by_kind().items():
        errors = ([x.nf4 for x in layers], [x.fp16 for x in layers])
        ratios = [x.ratio for x in layers if x.ratio is not None]
        cells = [f"{median(e):.2%}, {max(e):.2%}" for e in errors]
        cells.append(f"{median(ratios):.2f}, {max(ratios):.2f}" if ratios else "no change")
        table.add_row(f"{kind} ({len(layers)})", *cells)
    return table


main = entry_point(command)


if __name__ == "__main__":
    main()
