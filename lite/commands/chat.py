"""`lite-chat`: chat about images in the terminal.

Contract: turns options into a `ChatSession`; what is done with it is in `lite.terminal`. A terminal
gets an interactive chat, which alone loads a line editor; piped input is one question a line.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from lite.cli import device_option, entry_point, say, version_option

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
is printed. In a terminal the chat goes on until Ctrl-D, Ctrl-C stops an
answer, and /help lists what else there is. Piped input is read as one
question a line.

Example: lite-chat park.jpg -m bundle -p "How many dogs are there?"
"""


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option(
    "-m",
    "--model",
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
@click.option("--stats", is_flag=True, help="Print times and tokens/s on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@click.option("--continue", "go_on", is_flag=True, help="Go on with the last conversation.")
@click.option("--session", metavar="FILE", help="Go on with this conversation, and keep it there.")
@click.option("--no-history", is_flag=True, help="Keep neither typed lines nor the conversation.")
@click.option("--no-pictures", is_flag=True, help="Do not draw images in the terminal.")
@version_option
def command(
    images: tuple[str, ...],
    model: str | None,
    prompt: str | None,
    system: str | None,
    device: str,
    threads: int | None,
    stats: bool,
    as_json: bool,
    go_on: bool,
    session: str | None,
    no_history: bool,
    no_pictures: bool,
    **settings: Any,
) -> None:
    from lite import load
    from lite.terminal import session_store
    from lite.terminal.chat_session import ChatSession
    from lite.terminal.prefetch import Prefetch
    from lite.terminal.printing import Printer
    from lite.terminal.session_store import SessionStore

    interactive = prompt is None and sys.stdin.isatty()
    _check(images, prompt, go_on, session)
    started = time.perf_counter()
    prefetch = Prefetch()
    opened = load(
        model,
        device,
        threads,
        hashing=lambda name: say(f"Checking {name} for the first time..."),
        notice=prefetch.say,
    )
    if session is not None:
        store = session_store.named(session)
    elif go_on:
        store = session_store.continued(opened)
    elif interactive and not no_history:
        store = session_store.last(opened)
    else:
        store = SessionStore()
    chat = _conversation(opened, store, go_on, system)
    if stats:
        say(f"open {time.perf_counter() - started:.3f} s")
    chat_session = ChatSession(opened, chat, settings, Printer(stats, as_json), store, prefetch)
    pictures = [_picture(image) for image in images]
    if interactive:
        _interact(chat_session, pictures, no_history, no_pictures)
    else:
        chat_session.waiting = pictures
        for question in _lines() if prompt is None else [prompt]:
            chat_session.ask(question)
    if store.named and not store.exists():
        store.keep(chat)  # nothing was asked


def _check(images: tuple[str, ...], prompt: str | None, go_on: bool, session: str | None) -> None:
    """Refuse options that contradict each other."""
    from lite.errors import BadInput

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
    if image == "-":
        from lite.terminal.attachments import standard_input

        return standard_input()
    from lite.image.loading import load_image

    return load_image(image)


def _interact(
    session: ChatSession, pictures: list[Picture], no_history: bool, no_pictures: bool
) -> None:
    from lite.terminal.editor import editor
    from lite.terminal.repl import interact
    from lite.userdirs import data_dir

    if not no_pictures:
        from lite.terminal import thumbnail

        session.draw = thumbnail.show
    if pictures:
        say(session.show(pictures))
    else:
        session.prefetch.start(session.chat, ())
    interact(session, editor(None if no_history else data_dir("history") / "lines"))


def _lines() -> Iterator[str]:
    from lite.errors import BadInput

    try:
        for line in sys.stdin:
            if line.strip():
                yield line.rstrip("\n")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"Standard input is not {error.encoding} text; convert it, or set PYTHONUTF8=1."
        ) from None


main = entry_point(command)

if __name__ == "__main__":
    main()
