"""`lite-bench`: the benchmarks by name.

Contract: each name is a module with a click command called `command`, imported only when it is
asked for: a list of the benchmarks needs none of them, and one without torch does not load it.
"""

from __future__ import annotations

from importlib import import_module

import click

from lite.cli import entry_point, version_option

# Name -> module, and its line in the list.
BENCHMARKS = {
    "chat": ("bench.chat", "Tokens/s and memory of a chat, with peers on the same shapes."),
    "export": ("bench.export", "Time, memory and size of an export, random weights."),
    "findings": ("bench.demo.findings", "Fine-tuning variants of the demo model, scored."),
    "load": ("bench.load", "Time and memory of loading a model into 4 bits."),
    "quality": ("bench.quality", "KL divergence and perplexity of bundles."),
    "quantizers": ("bench.quantizers", "Ways to 4 bits, by the loss of predictions."),
    "serve": ("bench.serve", "First byte of turns 1 and 2 through lite-serve."),
    "session": ("bench.session", "First token after a saved session is opened."),
    "skills": ("bench.demo.skills", "Scores of a bundle on the skills of the demo."),
    "startup": ("bench.startup", "First token of lite-chat from a cold start."),
    "train": ("bench.train", "Speed, memory and loss of training steps."),
    "vision": ("bench.vision", "Vision encoder in int8 beside fp32."),
}

HELP = """
Measure speed, memory and quality, with peers side by side.

Results are JSON, on stdout or in a file, with the machine and the command that
made them.

\b
Example: lite-bench startup -m bundle photo.jpg
         lite-bench train --shape 9b
"""


class Benchmarks(click.Group):
    """The group of all benchmarks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(BENCHMARKS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in BENCHMARKS:
            return None
        found: click.Command = import_module(BENCHMARKS[name][0]).command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in BENCHMARKS:
            ctx.fail(f"There is no benchmark {args[0]}; give one of {', '.join(BENCHMARKS)}.")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Benchmarks"):
            formatter.write_dl([(name, line) for name, (_, line) in BENCHMARKS.items()])


@click.command(cls=Benchmarks, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def command() -> None:
    pass


main = entry_point(command)


if __name__ == "__main__":
    main()
