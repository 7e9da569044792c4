"""`lite-bench`: the benchmarks by name.

Contract: each name is a module of `bench` with a click command called `command`, imported only when
it is asked for, so that one that needs no torch does not load it.
"""

from __future__ import annotations

from importlib import import_module

import click

from lite.cli import entry_point, version_option

DEMO = ("findings", "skills")
NAMES = (
    "chat",
    "export",
    "findings",
    "load",
    "quality",
    "quantizers",
    "serve",
    "session",
    "skills",
    "startup",
    "train",
    "vision",
)

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
        return list(NAMES)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in NAMES:
            return None
        found: click.Command = import_module(
            f"bench.demo.{name}" if name in DEMO else f"bench.{name}"
        ).command
        return found


@click.command(cls=Benchmarks, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def command() -> None:
    pass


main = entry_point(command)


if __name__ == "__main__":
    main()
