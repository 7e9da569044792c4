"""`lite-export`: checkpoints to a bundle.

Contract: options to checkpoints to `write_bundle`; prints the chain of proofs on stdout, as a table
or as JSON, and everything else on stderr.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from export.published import PUBLISHED, TINY, Checkpoints
from lite.attend import FOLLOWING, RULES
from lite.commands.common import entry_point, say
from lite.errors import BadInput
from lite.manifest import Manifest

HELP = """
Make a bundle for lite-chat from checkpoints.

NAME stands for a whole set: mmgpt-9b is the published Multimodal-GPT
(fetched from the hub, 20 GB), tiny is a random model made on the spot that
shows the commands and answers nonsense. Without NAME, or to replace a part
of it, name the checkpoints: paths, hub ids (org/name, org/name/file) or
addresses. CLIP is an open_clip model name and pretrained tag, or a config
file and a weights file (OpenAI's weights in a file go with the name
ViT-L-14-quickgelu).

\b
Example: lite-export --llama llama-7b --flamingo checkpoint.pt \\
                     --lora mmgpt-lora.pt -o bundle
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("name", required=False, type=click.Choice([*PUBLISHED, TINY]), metavar="[NAME]")
@click.option("--llama", metavar="DIR|HUB", help="LLaMA folder.")
@click.option("--clip", metavar="NAME|FILE", help="CLIP model or config.  [default: ViT-L-14]")
@click.option("--clip-weights", metavar="TAG|FILE", help="CLIP weights.  [default: openai]")
@click.option("--flamingo", metavar="FILE|HUB", help="OpenFlamingo checkpoint.pt.")
@click.option("--lora", metavar="FILE|DIR|HUB", help="Multimodal-GPT LoRA file or PEFT folder.")
@click.option(
    "--attend",
    type=click.Choice(RULES),
    help="Which image text attends to, as the model was trained.  [default: following]",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "int4", "fp32"]),
    default="int8",
    show_default=True,
    help="How the decoder's matrices are stored.",
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
@click.option("--max-kl", type=float, help="Refuse a bundle whose KL divergence is larger.")
@click.option("--json", "as_json", is_flag=True, help="Print the proofs as JSON.")
@click.version_option(package_name="mmgpt-lite", prog_name="lite-export")
def command(
    name: str | None,
    precision: str,
    output: Path,
    force: bool,
    max_kl: float | None,
    as_json: bool,
    **parts: str | None,
) -> None:
    if output.exists() and not force:  # before anything is downloaded
        raise BadInput(f"{output} exists already; choose another name or replace it with --force.")
    with ExitStack() as stack:
        if name == TINY:
            checkpoints = _tiny(stack)
        else:
            checkpoints = _checkpoints(PUBLISHED.get(name or ""), parts)
        manifest = _export(checkpoints, precision, output, force, max_kl)
    _report(manifest, output, as_json)


def _tiny(stack: ExitStack) -> Checkpoints:
    from export.tiny import write_checkpoints

    say("Making a tiny model with random weights: it shows the commands and answers nonsense.")
    return write_checkpoints(Path(stack.enter_context(tempfile.TemporaryDirectory())))


def _checkpoints(published: Checkpoints | None, parts: dict[str, str | None]) -> Checkpoints:
    """The named set, if any, with the parts that were given in its place."""

    def part(key: str, default: str | None = None) -> str | None:
        return parts[key] or (getattr(published, key) if published else default)

    llama, flamingo = part("llama"), part("flamingo")
    if llama is None or flamingo is None:
        raise BadInput(
            "The checkpoints are incomplete; give --llama and --flamingo, or a NAME such as "
            f"{next(iter(PUBLISHED))}."
        )
    return Checkpoints(
        llama=llama,
        clip=part("clip", "ViT-L-14") or "",
        clip_weights=part("clip_weights", "openai") or "",
        flamingo=flamingo,
        lora=part("lora"),
        attend=part("attend", FOLLOWING) or FOLLOWING,
    )


def _export(
    checkpoints: Checkpoints, precision_name: str, output: Path, force: bool, max_kl: float | None
) -> Manifest:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from export.bundle import write_bundle
    from export.precision import precision
    from export.verify import prove

    chosen = precision(precision_name)
    weights = _read(checkpoints)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(f"Writing {chosen.name} weights", total=weights.parameters)

        def prove_with_progress(bundle: Any) -> Any:
            progress.update(task, description="Comparing with torch", total=None)
            return prove(bundle, weights, chosen, max_kl)

        return write_bundle(
            weights,
            output,
            chosen,
            prove_with_progress,
            force=force,
            wrote=lambda count: progress.advance(task, count),
        )


def _read(checkpoints: Checkpoints) -> Any:
    from qlora.hub import resolve
    from qlora.model import read_weights

    c = checkpoints
    return read_weights(
        resolve(c.llama, "llama"),
        c.clip,
        c.clip_weights,
        resolve(c.flamingo, "flamingo"),
        resolve(c.lora, "lora") if c.lora else None,
        c.attend,
    )


def _report(manifest: Manifest, output: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    size = sum(record.size for record in manifest.files.values())
    if as_json:
        click.echo(json.dumps({"bundle": str(output), "bytes": size, "proofs": manifest.proofs}))
        return
    table = Table("step", "compared with", "measure", "value", "limit", box=None)
    for proof in manifest.proofs:
        limit = "" if proof["limit"] is None else f"{proof['limit']:.3g}"
        row = (proof["step"], proof["against"], proof["measure"], f"{proof['value']:.3g}", limit)
        table.add_row(*row)
    Console().print(table)
    parameters = manifest.sizes.parameters
    say(f"{output}: {parameters / 1e6:,.1f} M parameters, {size / 1e6:,.1f} MB.")
    say(f"Chat with it: lite-chat IMAGE -m {output}")


main = entry_point(command)


if __name__ == "__main__":
    main()
