"""What all commands share: errors become one sentence and an exit code.

Contract: 0 success, 1 a failure of ours, 2 bad input, 130 Ctrl-C; never a traceback unless
`MMGPT_LITE_DEBUG` is set. Answers go to stdout, everything else to stderr. What is printed for a
person passes `printable`, so that no file name and no manifest commands the terminal.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

import click

from lite.errors import LiteError
from lite.runtime.device import CPU, DEVICES

INTERRUPTED = 130
# The name of threads whose work is not needed once the command ends.
BACKGROUND = "background"
BACKGROUND_JOIN_SECONDS = 0.5
# C0 and C1 control characters but tab and newline, and DEL.
CONTROLS = {c: None for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


def run(
    command: click.Command, arguments: list[str] | None = None, name: str | None = None
) -> NoReturn:
    """Run a click command and leave the process with its exit code; `name` is for its usage."""
    _open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without emoji still gets the rest
            stream.reconfigure(errors="replace")
    try:
        ended = command.main(arguments, name, standalone_mode=False)
        sys.stdout.flush()
        code = ended if isinstance(ended, int) else 0  # click returns the code of its Exit
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        say(shown.getvalue().rstrip())
        code = error.exit_code
    except LiteError as error:
        code = _failed(str(error), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        code = _failed("Stopped.", INTERRUPTED)
    except SystemExit:  # how click ends, silently, when the reader of our output has left
        code = 0
    except BrokenPipeError:  # the reader of our output has left: nothing to report
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        code = _failed(_system_error(error), 1)
    except Exception as error:
        if _interrupted(error):
            code = _failed("Stopped.", INTERRUPTED)
        elif os.environ.get("MMGPT_LITE_DEBUG"):
            raise
        else:
            code = _failed(
                f"Something in this program went wrong ({type(error).__name__}: {error}); "
                f"set MMGPT_LITE_DEBUG=1 to see where, and report it.",
                1,
            )
    _leave(code)


def entry_point(command: click.Command) -> Callable[[], None]:
    """The function that a console script calls."""

    def main() -> None:
        run(command)

    return main


def device_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--device` of the commands that run a bundle."""
    option = click.option(
        "--device",
        type=click.Choice(DEVICES),
        default=CPU,
        show_default=True,
        help="cuda takes a bundle of fp16 activations; without a GPU the CPU does the work.",
    )
    return option(command)


def version_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--version` of every command."""

    def show(context: click.Context, parameter: click.Parameter, wanted: bool) -> None:
        if wanted and not context.resilient_parsing:
            from lite import __version__

            click.echo(f"{context.command_path}, version {__version__}")
            context.exit()

    option = click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version and exit.",
    )
    return option(command)


def printable(text: str) -> str:
    """`text` without the characters that command a terminal."""
    return text.translate(CONTROLS)


def verify_option(command: Callable[..., None]) -> Callable[..., None]:
    """`--verify` of the commands that open a bundle."""
    option = click.option(
        "--verify", is_flag=True, help="Hash every file of the bundle, the large ones too."
    )
    return option(command)


def say(message: str) -> None:
    """Print a line for the person on stderr."""
    click.echo(printable(message), err=True)


def _open_standard_streams() -> None:
    """Give streams that the caller closed (`>&-`) a place to go.

    Without it the next file that is opened has the closed stream's number, and what is meant for
    the person ends in that file.
    """
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


def _leave(code: int) -> NoReturn:
    """End the process, at once where a background thread is deep in ONNX Runtime.

    A thread that comes back from there while the interpreter is taken down would abort it.
    """
    for thread in threading.enumerate():
        if thread.name == BACKGROUND:
            thread.join(BACKGROUND_JOIN_SECONDS)
            if thread.is_alive():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
    sys.exit(code)


def _failed(message: str, code: int) -> int:
    say(f"Error: {message}" if code != INTERRUPTED else message)
    return code


def _interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C is behind it: a module in C that is being imported makes an error of its
    own of what it meets."""
    name = KeyboardInterrupt.__name__
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, KeyboardInterrupt) or name in str(chain):
            return True
        chain = chain.__cause__ or chain.__context__
    return False


def _system_error(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"The disk is full{where}; free some space and run the command again."
    return f"The system refused an operation{where} ({error.strerror or error})."
