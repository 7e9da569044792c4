"""`lite-chat`: talk about images in the terminal.

Contract: a thin reader of `Chat.ask`. stdout carries answers only; notes, progress and statistics
go to stderr. A terminal gets an interactive chat, piped input is one question a line.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import click

from lite.commands.common import entry_point, say

HELP = """
Chat about images with an exported bundle.

IMAGE is a picture file; several are shown to the model in order. With -p the
question is asked once and only the answer is printed. In a terminal the chat
goes on until Ctrl-D; Ctrl-C stops an answer, and once more leaves. Piped
input is read as one question a line.

Example: lite-chat park.jpg -m bundle -p "How many dogs are there?"
"""

# C0 and C1 control characters but tab and newline, and DEL.
CONTROLS = {c: None for c in (*range(32), *range(127, 160)) if chr(c) not in "\t\n"}


@click.command(help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("images", nargs=-1, metavar="[IMAGE]...")
@click.option("-m", "--model", metavar="BUNDLE", help="Folder that lite-export wrote.")
@click.option("-p", "--prompt", metavar="TEXT", help="Ask this once, print the answer, leave.")
@click.option("--system", metavar="TEXT", help="Replace the opening line of the prompt.")
@click.option("--max-tokens", default=512, show_default=True, help="Longest answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--top-k", default=0, show_default=True, help="Keep the k likeliest; 0 keeps all.")
@click.option("--top-p", default=1.0, show_default=True, help="Keep this much probability.")
@click.option("--min-p", default=0.0, show_default=True, help="Drop below this share of the best.")
@click.option("--repetition-penalty", default=1.0, show_default=True, help="Above 1 repeats less.")
@click.option("--seed", type=int, help="Makes sampling repeatable.")
@click.option("--threads", type=int, help="Worker threads.  [default: one per physical core]")
@click.option("--stats", is_flag=True, help="Print times and tokens/s on stderr.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per answer.")
@click.version_option(package_name="mmgpt-lite", prog_name="lite-chat")
def command(
    images: tuple[str, ...],
    model: str | None,
    prompt: str | None,
    system: str | None,
    threads: int | None,
    stats: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    from lite import load
    from lite.images import load_image

    started = time.perf_counter()
    hashing = lambda name: say(f"Checking {name} for the first time...")  # noqa: E731
    chat = load(model, threads=threads, hashing=hashing).chat(system)
    if stats:
        say(f"open {time.perf_counter() - started:.3f} s")
    talk = Conversation(chat, images, settings, stats, as_json)
    if prompt is not None:
        talk.answer(prompt)
    elif sys.stdin.isatty():
        for image in images:
            load_image(image)  # one that cannot be shown would fail every question
        talk.interact()
    else:
        for question in _lines():
            talk.answer(question)


class Conversation:
    """Prints answers; the images go with the first question."""

    def __init__(
        self,
        chat: Any,
        images: tuple[str, ...],
        settings: dict[str, Any],
        stats: bool,
        as_json: bool,
    ) -> None:
        self._chat = chat
        self._images = list(images)
        self._settings = settings
        self._stats = stats
        self._as_json = as_json

    def interact(self) -> None:
        """Questions from a terminal until Ctrl-D, or Ctrl-C where no answer is under way."""
        say("Ask about the image, or anything. Ctrl-D leaves.")
        while True:
            try:
                question = _typed()
            except EOFError:
                say("")
                return
            if question.strip():
                self._answer_until_interrupted(question)

    def answer(self, question: str) -> None:
        """Ask, and print the answer as it comes."""
        answer, timings = "", None
        pieces = self._chat.ask(question, self._images, progress=self._progress, **self._settings)
        with closing(pieces):  # Ctrl-C while printing ends the answer here, not some time later
            for piece in pieces:
                if piece.note:
                    say(piece.note)
                timings = piece.timings
                answer += piece.text
                if not self._as_json:
                    print(_printable(piece.text), end="", flush=True)
        self._images = []
        if self._as_json:
            print(json.dumps({"answer": answer, **(asdict(timings) if timings else {})}))
        else:
            print(flush=True)
        if self._stats and timings:
            say(_statistics(timings))

    def _answer_until_interrupted(self, question: str) -> None:
        from lite.errors import BadInput

        try:
            self.answer(question)
        except KeyboardInterrupt:
            self._images = [] if self._chat.exchanges else self._images
            say("\n(stopped; Ctrl-C again leaves)")
        except BadInput as error:
            say(f"Error: {error}")

    def _progress(self, what: str, done: int, total: int) -> None:
        """One line that is overwritten, for people only."""
        if not sys.stderr.isatty() or self._as_json:
            return
        if what == "image":
            line = f"looking at image {done + 1} of {total}..."
        else:
            line = f"reading {done} of {total} tokens..." if done < total else ""
        # Carriage return and erase-line: the answer then starts on a clean line.
        click.echo(f"\r\x1b[K{line}", nl=False, err=True)


def _printable(text: str) -> str:
    """`text` without what would command a terminal; a pipe gets the answer as it is."""
    return text.translate(CONTROLS) if sys.stdout.isatty() else text


def _typed() -> str:
    """A line from the terminal; stdout gets the prompt only where a person reads it."""
    if sys.stdout.isatty():
        return input("> ")
    click.echo("> ", nl=False, err=True)
    return input()


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


def _statistics(t: Any) -> str:
    return (
        f"image {t.image_seconds:.3f} s ({t.images_computed} computed)  "
        f"prefill {t.prefill_tokens} of {t.prompt_tokens} tokens in {t.prefill_seconds:.3f} s  "
        f"decode {t.new_tokens} tokens in {t.decode_seconds:.3f} s, "
        f"{t.tokens_per_second:.1f} tokens/s  ({t.finish})"
    )


main = entry_point(command)

if __name__ == "__main__":
    main()
