"""`lite-chat`: chat about images in the terminal.

Contract: turns options into a `ChatSession`; what is done with it is in `lite.terminal`. A terminal
gets an interactive chat, which alone loads a line editor; piped input is one question a line.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lite.cli import device_option, run, say, verify_option, version_option
from lite.errors import BadInput

if TYPE_CHECKING:
    from lite.chat.chat import Chat
    from lite.chat.model import Model
    from lite.image.loading import Picture
    from lite.terminal.chat_session import ChatSession
    from lite.terminal.session_store import SessionStore

HELP = """
Chat about images with an exported bundle, or without -m with the demo model,
which knows drawn scenes.

IMAGE is a picture file, or - for one from standard input; several are shown
to the model in order. With -p the question is asked once and only the answer
is printed; a picture that is piped in goes with it, and a text follows it.
In a terminal the chat goes on until Ctrl-D, Ctrl-C stops an answer, and /help
lists what else there is. Piped input is read as one question a line. A
question may name pictures by their paths.

`lite-chat cache` shows, bounds and clears what is kept on the disk.

Example: lite-chat park.jpg -m bundle -p "How many dogs are there?"
"""
# A program that gives us its own standard input may never write to it: this long, from our start,
# a picture may take to arrive beside -p.
PIPE_SECONDS = 0.5


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("images", nargs=-1, type=click.Path(), metavar="[IMAGE]...")
@click.option(
    "-m",
    "--model",
    type=click.Path(),
    metavar="BUNDLE",
    help="Folder that lite-export wrote.  [default: the demo model]",
)
@click.option("-p", "--prompt", metavar="TEXT", help="Ask this once, print the answer, leave.")
@click.option("--system", metavar="TEXT", help="Replace the opening line of the prompt.")
@click.option("--max-tokens", default=512, show_default=True, help="Longest answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Keep the k likeliest; 0 keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help="Keep this much probability.")
@click.option("--min-p", default=0.0, show_default=True, help="Drop below this share of the best.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1 repeats less.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@device_option
@click.option("--threads", type=int, help="Worker threads.  [default: measured once]")
@verify_option
@click.option("--stats", is_flag=True, help="Print times and tokens/s on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option(
    "--session",
    type=click.Path(),
    metavar="FILE",
    help="Go on with this conversation, and keep it there.",
)
@click.option("--no-history", is_flag=True, help="Keep neither typed lines nor the conversation.")
@click.option("-q", "--quiet", is_flag=True, help="Print answers and errors only.")
@click.option("--no-pictures", is_flag=True, help="Do not draw images in the terminal.")
@version_option
def command(
    images: tuple[str, ...],
    model: str | None,
    prompt: str | None,
    system: str | None,
    device: str,
    threads: int | None,
    verify: bool,
    stats: bool,
    as_json: bool,
    go_on: bool,
    session: str | None,
    no_history: bool,
    quiet: bool,
    no_pictures: bool,
    **settings: Any,
) -> None:
    from lite import load
    from lite.terminal import session_store
    from lite.terminal.chat_session import ChatSession
    from lite.terminal.notices import once_a_day
    from lite.terminal.prefetch import Prefetch
    from lite.terminal.printing import Printer
    from lite.terminal.session_store import SessionStore

    interactive = prompt is None and sys.stdin.isatty()
    _check(images, prompt, go_on, session)
    started = time.perf_counter()
    prefetch = Prefetch()
    say_unless_quiet = (lambda message: None) if quiet else prefetch.say
    opened = load(
        model,
        device,
        threads,
        hashing=lambda name: say_unless_quiet(f"Checking {name}..."),
        verify=verify,
        notice=say_unless_quiet if model is not None or quiet else once_a_day(prefetch.say),
    )
    if session is not None:
        store = session_store.named(session)
    elif go_on:
        store = session_store.continued(opened)
    elif no_history or not (interactive or prompt is not None):
        store = SessionStore()
    else:
        store = session_store.last(opened, interactive)
    chat = _conversation(opened, store, go_on, system)
    if stats:
        say(f"open {time.perf_counter() - started:.3f} s")
    printer = Printer(stats, as_json, quiet)
    chat_session = ChatSession(opened, chat, settings, printer, store, prefetch)
    chat_session.interactive = interactive
    pictures = [_picture(image) for image in images]
    if interactive:
        _interact(chat_session, pictures, no_history, no_pictures, quiet)
    elif prompt is not None:
        picture, text = None, ""
        if "-" not in images:
            picture, text = _piped(started + PIPE_SECONDS - time.perf_counter())
        chat_session.waiting = [*pictures, picture] if picture else pictures
        chat_session.ask_line(f"{prompt}\n\n{text}" if text else prompt)
        if not (picture or text or "-" in images) and any(_piped(0)):
            raise BadInput(
                "Standard input came after the question had been asked; give - to wait for a "
                "picture."
            )
    else:
        chat_session.waiting = pictures
        _ask_lines(chat_session)
    if store.named and not store.exists():
        store.keep(chat)  # nothing was asked


def _check(images: tuple[str, ...], prompt: str | None, go_on: bool, session: str | None) -> None:
    """Refuse options that contradict each other."""
    if go_on and session is not None:
        raise BadInput("--continue and --session name two conversations; give one of them.")
    if images.count("-") > 1:
        raise BadInput("Standard input holds one image; give - once.")
    if "-" in images and prompt is None:
        raise BadInput(
            "With - standard input is the image, so questions cannot come from there; give -p TEXT."
        )


def _conversation(model: Model, store: SessionStore, go_on: bool, system: str | None) -> Chat:
    """The conversation in the store's file, or a new one."""
    if store.path is None or not (go_on or store.named) or not store.exists():
        return model.chat(system)
    chat = model.open(store.path)
    chat.system = chat.system if system is None else system
    return chat


def _picture(image: str) -> Picture:
    from lite.image.loading import load_image
    from lite.terminal import attachments

    return attachments.standard_input() if image == "-" else load_image(attachments.argument(image))


def _piped(seconds: float) -> tuple[Picture | None, str]:
    """The picture or the text that is piped in beside -p, if any comes within a time."""
    from lite.terminal.attachments import is_picture, piped_start, standard_input

    start = piped_start(seconds)
    if is_picture(start):
        return standard_input(), ""
    return None, _text(sys.stdin.buffer.read()).strip() if start else ""


def _interact(
    session: ChatSession,
    pictures: list[Picture],
    no_history: bool,
    no_pictures: bool,
    quiet: bool,
) -> None:
    from lite.terminal.editor import editor
    from lite.terminal.repl import interact
    from lite.userdirs import data_dir

    if not no_pictures:
        from lite.terminal import thumbnail

        session.draw = thumbnail.show
    if pictures:
        reply = session.show(pictures)
        if not quiet:
            say(reply)
    else:
        session.prefetch.start(session.chat, ())
    interact(session, editor(None if no_history else data_dir("history") / "lines"), quiet)


def _ask_lines(session: ChatSession) -> None:
    """Ask each line of standard input; one that cannot be asked is reported, and the rest asked."""
    from lite.terminal.attachments import is_picture, peek

    if is_picture(peek()):
        raise BadInput(
            "Standard input is a picture, so questions cannot come from there; give -p TEXT."
        )
    asked = failed = 0
    for number, raw in enumerate(sys.stdin.buffer, 1):
        try:
            line = _text(raw).rstrip("\r\n")
            if line.strip():
                asked += 1
                session.ask_line(line)
        except BadInput as error:
            failed += 1
            say(f"Error: Line {number}: {error}")
    if failed:
        raise click.exceptions.Exit(BadInput.exit_code)
    if not asked or (session.waiting and not session.chat.exchanges):
        raise BadInput("No question came on standard input; pipe one in, or give -p TEXT.")


def _text(line: bytes) -> str:
    try:
        return line.decode(sys.stdin.encoding, sys.stdin.errors or "strict")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"Standard input is not {error.encoding} text; convert it, or set PYTHONUTF8=1."
        ) from None


def main() -> None:
    if sys.argv[1:2] == ["cache"] and not Path("cache").exists():
        from lite.commands.cache import command as cache

        run(cache, sys.argv[2:], "lite-chat cache")
    run(command)


if __name__ == "__main__":
    main()
