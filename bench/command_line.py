"""The command that a result was made by, for the result."""

import sys

import click


def command_line() -> str:
    """The running command as it was typed, whether by itself or through `lite-bench`."""
    context = click.get_current_context()
    own = sys.argv[2:] if context.parent else sys.argv[1:]
    return " ".join([context.command_path, *own])
