"""Samples as people can check them: what the model reads, and what of it is trained.

Contract: everything shown is decoded from the ids and targets that training would use, nothing is
taken from the record, so a mistake on the way from one to the other can be seen here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from lite.cli import printable
from lite.text.tokenizer import TextStream, Tokenizer
from qlora.data.encode import IGNORE, Sample

PROMPT, IMAGE, TRAINED, WRONG = "prompt", "image", "trained", "wrong"
STYLES = {PROMPT: "dim", IMAGE: "magenta", TRAINED: "green", WRONG: "bold red"}
END = "■"
OPEN, CLOSE = "⟦", "⟧"
BOUNDARY = "╎"


class Segment(NamedTuple):
    """A part of the printed sample: the text that one token completes, and its role in training."""

    text: str
    kind: str


def segments(sample: Sample, tokenizer: Tokenizer) -> Iterator[Segment]:
    """The sample's tokens, one after the other.

    A token is trained if the position before it must predict it. The end of an answer, which is in
    no context, is a segment of its own; any other target that is not the next token is `WRONG`.
    """
    names = {number: name for name, number in tokenizer.special_ids.items()}
    images, count = iter(sample.images), 0
    text = TextStream(tokenizer)
    ids, targets = sample.ids.tolist(), sample.targets.tolist()
    for i, token in enumerate(ids):
        trained = i > 0 and targets[i - 1] == token
        if token == tokenizer.image and not trained:
            count += 1
            if (count - 1) % tokenizer.image_tokens:
                continue  # a further token of the same image
            shown = next(images, None)
            yield Segment(f"<image: {shown.name}>" if shown else "<image: none>", IMAGE)
        elif token in names:
            yield Segment(names[token], WRONG if trained else PROMPT)
        else:
            yield Segment(text.feed(token), TRAINED if trained else PROMPT)
        target = targets[i]
        if target == tokenizer.eos:
            yield Segment(text.end() + END, TRAINED)
        elif target != IGNORE and target not in ids[i + 1 : i + 2]:
            yield Segment(names.get(target) or tokenizer.decode([target]), WRONG)
    if rest := text.end():
        yield Segment(rest, PROMPT)


def headline(sample: Sample) -> str:
    """Where the sample comes from, how much of it is trained, and what did not fit."""
    parts = [f"{sample.source} {sample.id}".strip(), f"{len(sample.ids)} tokens"]
    parts.append(f"{sample.trained} trained")
    if sample.context_only:
        parts.append(f"answers marked not to be trained: {sample.context_only}")
    if sample.dropped:
        parts.append(f"truncated: {sample.dropped} exchanges dropped")
    if sample.cut:
        parts.append(f"truncated: the answer's last {sample.cut} tokens cut")
    if not sample.trained:
        parts.append("nothing to train on")
    return printable(", ".join(part for part in parts if part))


def styled(sample: Sample, tokenizer: Tokenizer) -> Text:
    """The sample in colours: the prompt dim, what is trained green.

    Faint marks stand between segments, but not where a space or a new line shows the boundary.
    """
    shown = Text()
    before = ""
    for segment in segments(sample, tokenizer):
        if not segment.text:
            continue
        if before and not before.endswith("\n") and not segment.text[0].isspace():
            shown.append(BOUNDARY, "bright_black dim")
        shown.append(printable(segment.text), STYLES[segment.kind])
        before = segment.text
    return shown


def plain(sample: Sample, tokenizer: Tokenizer) -> str:
    """The sample without colours: what is trained stands between `OPEN` and `CLOSE`."""
    shown, inside = [], False
    for segment in segments(sample, tokenizer):
        trained = segment.kind in (TRAINED, WRONG)
        if trained != inside and segment.text:
            shown.append(OPEN if trained else CLOSE)
            inside = trained
        shown.append(printable(segment.text))
    return "".join(shown) + (CLOSE if inside else "")


def show(samples: Iterable[Sample], tokenizer: Tokenizer, console: Console) -> None:
    """Print samples: in colours where the console has them, else with brackets."""
    for number, sample in enumerate(samples, 1):
        coloured = console.is_terminal and not console.no_color and console.color_system is not None
        title = f"{number}. {headline(sample)}"
        if coloured:
            console.print(Text(title, "bold"))
            console.print(styled(sample, tokenizer), end="\n\n", soft_wrap=True)
        else:
            console.out(f"{title}\n{plain(sample, tokenizer)}\n", highlight=False)
