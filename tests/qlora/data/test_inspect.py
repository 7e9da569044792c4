"""Samples as shown: decoded from ids and targets, with what is trained marked."""

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from lite.text.template import MMGPT
from qlora.data.conversation import Conversation, Exchange, ImageRef
from qlora.data.encode import IGNORE, Sample, encode
from qlora.data.inspect import (
    BOUNDARY,
    CLOSE,
    END,
    OPEN,
    STYLES,
    TRAINED,
    WRONG,
    headline,
    plain,
    segments,
    show,
    styled,
)
from tests.qlora.data.small import fixture_tokenizer, say

TOKENIZER = fixture_tokenizer()


def sample_of(conversation: Conversation, max_tokens: int = 10_000) -> Sample:
    return encode(conversation, TOKENIZER, MMGPT, max_tokens, "llava")


def trained_text(sample: Sample) -> list[str]:
    """What stands between the brackets."""
    return [part.split(CLOSE)[0] for part in plain(sample, TOKENIZER).split(OPEN)[1:]]


def test_the_plain_form_brackets_what_is_trained() -> None:
    sample = sample_of(say("what is it?", "two dogs", "no", images=1))
    assert plain(sample, TOKENIZER) == (
        f"<s> {MMGPT.system}\n\n### Image:<image: dog.png> ### Instruction:\nwhat is it?\n\n"
        f"### Response:\n{OPEN}two dogs{END}{CLOSE}\n\n### Instruction:\nand then?\n\n"
        f"### Response:\n{OPEN}no{END}{CLOSE}"
    )


def test_in_colours_what_is_trained_is_green_and_nothing_else() -> None:
    sample = sample_of(say("what is it?", "two dogs", images=1))
    shown = styled(sample, TOKENIZER)
    green = [shown.plain[s.start : s.end] for s in shown.spans if s.style == STYLES[TRAINED]]
    assert "".join(green) == f"two dogs{END}"
    assert shown.plain.replace(BOUNDARY, "") == plain(sample, TOKENIZER).translate(
        {ord(OPEN): None, ord(CLOSE): None}
    )
    # Marks stand inside words: a space is mark enough.
    assert f"w{BOUNDARY}hat is it{BOUNDARY}?\n" in shown.plain


def test_what_is_shown_comes_from_the_targets() -> None:
    sample = sample_of(say("what is it?", "two dogs"))
    nothing = dataclasses.replace(sample, targets=np.full_like(sample.targets, IGNORE))
    assert trained_text(nothing) == []
    # The slip that trains a model to copy: each position predicts its own token.
    copying = dataclasses.replace(sample, targets=np.where(sample.targets < 0, IGNORE, sample.ids))
    kinds = [segment.kind for segment in segments(copying, TOKENIZER)]
    assert WRONG in kinds
    with_bos = dataclasses.replace(sample, targets=np.full_like(sample.targets, TOKENIZER.image))
    assert {p.text for p in segments(with_bos, TOKENIZER) if p.kind == WRONG} == {"<image>"}


def test_an_image_says_which_picture_it_is_and_a_spelled_one_does_not() -> None:
    images = (ImageRef("one.png", data=b""), ImageRef("two.png", data=b""))
    sample = sample_of(Conversation("x", (Exchange("<image> </s>", "<image>", images=images),)))
    shown = plain(sample, TOKENIZER)
    assert shown.index("<image: one.png>") < shown.index("<image: two.png>")
    assert "<image> </s>" in shown
    assert trained_text(sample) == [f"<image>{END}"]
    kinds = [p.kind for p in segments(sample, TOKENIZER) if p.text.startswith("<image: ")]
    assert kinds == ["image"] * 2


@pytest.mark.parametrize("answer", ["héllo 🐕 語", "tabs\tand\n\nlines", "▁"])
def test_characters_of_several_tokens_are_whole(answer: str) -> None:
    sample = sample_of(say("🐕?", answer))
    assert trained_text(sample) == [answer.replace("▁", " ") + END]
    assert "\ufffd" not in styled(sample, TOKENIZER).plain


def test_no_text_commands_the_terminal() -> None:
    sample = sample_of(say("\x1b[2Jred\x07", "\x1b]0;title\x07blue"))
    for shown in (plain(sample, TOKENIZER), styled(sample, TOKENIZER).plain):
        assert "\x1b" not in shown
        assert "\x07" not in shown


def test_the_headline_says_what_did_not_fit() -> None:
    talk = say("what is it?", "two dogs", "no")
    whole = sample_of(talk)
    assert headline(whole) == f"llava x, {len(whole.ids)} tokens, {whole.trained} trained"
    assert "truncated: 1 exchanges dropped" in headline(sample_of(talk, len(whole.ids) - 1))
    cut = sample_of(say("what is it?", "two dogs"), len(sample_of(say("what is it?", "")).ids) + 1)
    assert "the answer's last" in headline(cut)
    assert END not in plain(cut, TOKENIZER)
    assert "nothing to train on" in headline(sample_of(talk, 5))


def test_an_answer_that_is_only_context_is_shown_as_such() -> None:
    answers = (Exchange("a?", "red", weight=0), Exchange("b?", "blue"))
    sample = sample_of(Conversation("x", answers))
    shown = plain(sample, TOKENIZER)
    assert f"{OPEN}blue{END}{CLOSE}" in shown
    assert "red" in shown
    assert f"{OPEN}red" not in shown
    assert "answers marked not to be trained: 1" in headline(sample)


def test_a_terminal_gets_colours_and_a_file_brackets() -> None:
    samples = [sample_of(say("[bold]what?[/bold]", "two dogs", images=1))] * 2

    def output(**terminal: object) -> str:
        console = Console(file=io.StringIO(), width=60, **terminal)  # type: ignore[arg-type]
        show(samples, TOKENIZER, console)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    text = output()
    assert text.startswith("1. llava x, ")
    assert text.count(f"{OPEN}two dogs{END}{CLOSE}") == 2
    assert "[bold]what?[/bold]" in text
    assert "\x1b" not in text
    coloured = output(force_terminal=True, color_system="standard")
    assert "\x1b[32m" in coloured
    assert OPEN not in coloured
    # https://no-color.org: then the marks have to do it.
    assert OPEN in output(force_terminal=True, no_color=True)
