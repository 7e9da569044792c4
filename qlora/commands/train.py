"""`qlora-train`: a recipe to an adapter.

Contract: options to one of four things done with a recipe (train, plan, inspect, audit); results
on stdout, progress and everything said to the person on stderr.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from lite.cli import entry_point, say, version_option
from lite.errors import BadInput

# Records of each data set that an audit reads and whose images it decodes, drawn by the seed.
AUDITED = 2_000

HELP = """
Fine-tune a model as a recipe says.

RECIPE is a YAML file, or the name of a recipe that comes with the program:
tiny takes minutes on a CPU and needs no download; mmgpt-9b is the published
Multimodal-GPT training on one GPU; mmgpt-9b-all-linear adapts LLaMA's
feed-forward too. SETTINGs replace single values: section.key=value.

The run's folder (output in the recipe) gets checkpoints, log.jsonl,
TensorBoard's curves and, in the end, the adapter, which lite-export --lora
takes. Ctrl-C keeps what was trained: --resume goes on exactly where it was.

\b
Example: qlora-train mmgpt-9b --dry-run
         qlora-train mmgpt-9b data.root=/data/mmgpt output=runs/first
         accelerate launch -m qlora.commands.train mmgpt-9b   (several GPUs)
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("recipe", metavar="RECIPE")
@click.argument("settings", nargs=-1, metavar="[SETTING]...")
@click.option("--resume", is_flag=True, help="Go on with the run in the recipe's output folder.")
@click.option("--dry-run", is_flag=True, help="Print the plan of memory and time, and stop.")
@click.option("--gpu", metavar="NAME", help="Plan for this GPU and not for this machine.")
@click.option("--inspect", type=click.IntRange(1), metavar="N", help="Show N samples and stop.")
@click.option("--audit", is_flag=True, help="Look at the quality of the data and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print plan or audit as JSON.")
@version_option
def command(
    recipe: str,
    settings: tuple[str, ...],
    resume: bool,
    dry_run: bool,
    gpu: str | None,
    inspect: int | None,
    audit: bool,
    as_json: bool,
) -> None:
    from qlora.recipes.reading import read_recipe

    chosen = read_recipe(recipe, settings)
    if gpu is not None and not dry_run:
        raise BadInput("--gpu names a GPU to plan for; give --dry-run with it.")
    if sum((dry_run, inspect is not None, audit)) > 1:
        raise BadInput("--dry-run, --inspect and --audit each print and stop; give one of them.")
    if dry_run:
        _plan(chosen, gpu, as_json)
    elif inspect is not None:
        _inspect(chosen, inspect)
    elif audit:
        _audit(chosen, as_json)
    else:
        _train(chosen, resume)


def _train(recipe: Any, resume: bool) -> None:
    from qlora.data.opening import open_data
    from qlora.training.assembly import make_trainer
    from qlora.training.engine import by_each, by_first, check_agreement, make_accelerator
    from qlora.training.folder import prepare_folder
    from qlora.training.signals import stop_on_sigterm

    stop_on_sigterm()

    # transformers of its own attribute, when peft asks it for that attribute.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
    engine = make_accelerator()
    by_first(engine, lambda: prepare_folder(recipe, resume))
    check_agreement(engine, {"--resume": str(resume)})
    with _progress(engine.is_main_process) as progress:
        data = by_each(engine, lambda: open_data(recipe, progress))
    if engine.is_main_process:
        _report_data(data)
    with _progress(engine.is_main_process) as progress:
        trainer = make_trainer(recipe, data, engine, progress)
    if resume:
        for sentence in trainer.resume():
            if engine.is_main_process:
                say(sentence)
    if trainer.finished:
        if engine.is_main_process:
            say(f"The run in {recipe.output} is finished; its adapter is {recipe.output}/adapter.")
        return
    start = f"Going on after step {trainer.step}" if trainer.step else "Training"
    if engine.is_main_process:
        count = sum(p.numel() for p in trainer.parameters.values())
        say(f"{start}: {trainer.total} steps, {count:,} trained parameters, on {engine.device}.")
    try:
        trainer.run()
    except KeyboardInterrupt:
        if engine.is_main_process:
            say(f"Stopped after step {trainer.step}; run the same command with --resume to go on.")
        raise
    if engine.is_main_process:
        say(f"The adapter is {recipe.output}/adapter. Give it to lite-export as --lora.")


def _plan(recipe: Any, gpu: str | None, as_json: bool) -> None:
    from rich.console import Console

    from qlora.plan import named_device, render, this_machine
    from qlora.training.forecast import plan_recipe

    device = this_machine() if gpu is None else named_device(gpu)
    with _progress() as progress:
        plan = plan_recipe(recipe, device, progress)
    if as_json:
        click.echo(json.dumps(plan.to_json()))
    else:
        Console().print(render(plan))


def _inspect(recipe: Any, count: int) -> None:
    from rich.console import Console

    from qlora.data.encode import encode
    from qlora.data.inspect import show
    from qlora.data.opening import open_data
    from qlora.recipes.model import open_tokenizer, own_templates

    with _progress() as progress:
        data = open_data(recipe, progress)
        tokenizer, usual = open_tokenizer(recipe)
    own = own_templates(recipe)
    streams = list(data.streams.values())
    samples = []
    for i in range(count):  # in the order of training, from each kind in turn
        conversation, source = streams[i % len(streams)][i // len(streams)]
        template = own.get(source, usual)
        samples.append(encode(conversation, tokenizer, template, recipe.data.max_tokens, source))
    show(samples, tokenizer, Console())


def _audit(recipe: Any, as_json: bool) -> None:
    from rich.console import Console

    from qlora.data.audit import audit
    from qlora.data.audit_report import render
    from qlora.data.opening import open_data
    from qlora.recipes.model import open_tokenizer

    with _progress() as progress:
        # What training would refuse is what an audit is for: count it.
        data = open_data(recipe.lenient(), progress)
        found = audit(
            data.streams,
            open_tokenizer(recipe)[0],
            limit=AUDITED,
            seed=recipe.training.seed,
            left_out={one.name: one.left_out for one in data.sets},
            repairs={one.name: one.repairs for one in data.sets},
            mix=data.mix_report(recipe.training),
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(found.to_json(), ensure_ascii=False))
    else:
        Console().print(render(found))


def _report_data(data: Any) -> None:
    for one in data.sets:
        left_out = sum(one.problems.values())
        reasons = ", ".join(f"{count} {reason}" for reason, count in one.left_out.items())
        note = f" ({left_out} left out: {reasons})" if left_out else ""
        mended = ", ".join(f"{count} x {what}" for what, count in one.repairs.items())
        note += f"; {mended}" if mended else ""
        say(f"{one.name}: {len(one):,} records{note}.")
    for sentence in data.notes:
        say(sentence)


@contextmanager
def _progress(active: bool = True) -> Iterator[Any]:
    """A bar on stderr for each (what, done, total) that is reported."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns, console = (TextColumn("{task.description}"), BarColumn()), Console(stderr=True)
    shown = active and console.is_terminal  # elsewhere it would leave blank lines
    bar = Progress(*columns, console=console, transient=True, disable=not shown)
    tasks: dict[str, Any] = {}

    def report(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(what, total=total)
        bar.update(tasks[what], completed=done)

    with bar:
        yield report


main = entry_point(command)


if __name__ == "__main__":
    main()
