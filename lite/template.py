"""Prompt templates: how a conversation becomes text and special tokens.

Contract: the one copy of the template that training and chat share. A template returns parts for
`lite.tokenizer.Tokenizer.encode`, so that text written by a person can never become a special
token; `guard` keeps it from passing for one of the template's headings either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lite.errors import BadInput
from lite.tokenizer import IMAGE, Special

Part = str | Special

# A line that reads like a heading of an Alpaca template. U+2581 is how SentencePiece writes a
# space, so that in a text it gives the same token as one.
HEADING = re.compile(
    r"^(?=#+(?:[^\S\n]|\u2581)*(?:image|instruction|input|response)\b)", re.I | re.M
)


@dataclass(frozen=True)
class Template:
    """A template of the Alpaca kind: headings, each on a line of its own after an empty line.

    Attributes:
        name: as the manifest spells it.
        system: the default opening line.
        image, instruction, input, response: headings.
        stops: text at which an answer ends, because it would open a new turn.
    """

    name: str
    system: str
    image: str
    instruction: str
    input: str
    response: str

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(f"\n\n{h}" for h in (self.image, self.instruction, self.response))

    def turn(self, text: str, images: int = 0, context: str = "") -> list[Part]:
        """One instruction, its images before it, up to where the answer starts.

        Args:
            text: the instruction.
            images: how many are shown before it.
            context: what the instruction is about, in a section of its own; empty for none.
        """
        parts: list[Part] = []
        for _ in range(images):
            parts += [f"\n\n{self.image}\n", IMAGE]
        given = f"\n\n{self.input}\n{self.guard(context)}" if context else ""
        parts.append(f"\n\n{self.instruction}\n{self.guard(text)}{given}\n\n{self.response}\n")
        return parts

    def guard(self, text: str) -> str:
        """`text` with a space before each line that reads like a heading of the template.

        With it the line's token ids differ from the heading's, so it cannot open or end a turn.
        """
        return HEADING.sub(" ", re.sub(r"\r\n?", "\n", text))


# Multimodal-GPT, mmgpt/datasets/*.py and app.py at 9c73e47.
MMGPT = Template(
    name="mmgpt",
    system=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
    ),
    image="### Image:",
    instruction="### Instruction:",
    input="### Input:",
    response="### Response:",
)

TEMPLATES = {template.name: template for template in (MMGPT,)}


def template(name: str) -> Template:
    """The template called `name`.

    Raises:
        BadInput: this version has none of that name.
    """
    if name not in TEMPLATES:
        raise BadInput(
            f"The prompt template {name!r} is unknown to this version; "
            f"install a newer one or export the bundle again."
        )
    return TEMPLATES[name]


def join(parts: list[Part]) -> list[Part]:
    """`parts` with neighbouring texts made one, as they must be tokenized together."""
    joined: list[Part] = []
    for part in parts:
        if joined and not isinstance(part, Special) and not isinstance(joined[-1], Special):
            joined[-1] += part
        else:
            joined.append(part)
    return joined
