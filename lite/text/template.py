"""Prompt templates: how a conversation becomes text and special tokens.

Contract: the one copy of the template that training and chat share. A template returns parts for
`lite.text.tokenizer.Tokenizer.encode`, so that text written by a person can never become a special
token; `guard` keeps it from passing for one of the template's headings either.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from lite.errors import BadInput
from lite.text.tokenizer import IMAGE, Special

Part = str | Special

# A line that reads like a heading of an Alpaca template. U+2581 is how SentencePiece writes a
# space, so that in a text it gives the same token as one.
HEADING = re.compile(
    r"^(?=#+(?:[^\S\n]|\u2581)*(?:image|instruction|input|response)\b)", re.I | re.M
)


@dataclass(frozen=True)
class Template(ABC):
    """How turns are written.

    Attributes:
        name: as the manifest spells it.
        system: the default opening line.
        strips: whether whitespace next to a special token is left out (`lite.text.tokenizer`).
        lead: what every answer begins with; it is a part of the answer's tokens but not shown.
    """

    name: str
    system: str
    strips: ClassVar[bool]
    lead: ClassVar[str]

    @property
    @abstractmethod
    def stops(self) -> tuple[str, ...]:
        """Texts at which an answer ends, because they would open a new turn."""

    def begin(self, system: str) -> list[Part]:
        """The opening line, as what stands before the first turn."""
        return [system]

    @abstractmethod
    def turn(
        self, text: str, images: int = 0, context: str = "", *, first: bool = True
    ) -> list[Part]:
        """One instruction, its images before it, up to where the answer starts.

        Args:
            text: the instruction.
            images: how many are shown before it.
            context: what the instruction is about; empty for none.
            first: it follows the opening line, and not an answer.
        """

    @abstractmethod
    def guard(self, text: str) -> str:
        """`text` changed where it reads like a heading of the template.

        The token ids then differ from the heading's, so it cannot open or end a turn.
        """


@dataclass(frozen=True)
class Alpaca(Template):
    """A template of the Alpaca kind: headings, each on a line of its own after an empty line.

    Attributes:
        image, instruction, input, response: headings.
    """

    image: str
    instruction: str
    input: str
    response: str
    strips: ClassVar[bool] = True
    lead: ClassVar[str] = ""

    @property
    def stops(self) -> tuple[str, ...]:
        return tuple(f"\n\n{h}" for h in (self.image, self.instruction, self.response))

    def turn(
        self, text: str, images: int = 0, context: str = "", *, first: bool = True
    ) -> list[Part]:
        parts: list[Part] = []
        for _ in range(images):
            parts += [f"\n\n{self.image}\n", IMAGE]
        given = f"\n\n{self.input}\n{self.guard(context)}" if context else ""
        parts.append(f"\n\n{self.instruction}\n{self.guard(text)}{given}\n\n{self.response}\n")
        return parts

    def guard(self, text: str) -> str:
        """A space before each line that reads like a heading."""
        return HEADING.sub(" ", _with_newlines(text))


@dataclass(frozen=True)
class Dialogue(Template):
    """A template of named speakers, whose texts were cut at `<image>` and tokenized one by one.

    Attributes:
        opening: between the opening line and the first turn.
        ending: after an answer, if another turn follows.
        before_image, after_image: around each image.
        after_images: after the last of a turn's images.
        user: before the instruction.
        asked: after the instruction.
        assistant: before the answer.
        headings: pattern of what opens a turn, with a group for what a space goes behind.
        stops: see `Template`.
    """

    opening: tuple[Part, ...]
    ending: tuple[Part, ...]
    before_image: Part
    after_image: Part
    user: str
    assistant: str
    headings: re.Pattern[str]
    stops: tuple[str, ...] = ()
    after_images: Part = ""
    asked: tuple[Part, ...] = ()
    strips: ClassVar[bool] = False
    # An answer was a text of its own, or follows a colon: either way it began with a space.
    lead: ClassVar[str] = " "

    def turn(
        self, text: str, images: int = 0, context: str = "", *, first: bool = True
    ) -> list[Part]:
        parts: list[Part] = [*(self.opening if first else self.ending)]
        for _ in range(images):
            parts += [self.before_image, IMAGE, self.after_image]
        parts += [self.after_images] if images else []
        asked = f"{context}\n{text}" if context else text
        parts += [f"{self.user}{self.guard(asked)}", *self.asked, self.assistant]
        return join([part for part in parts if part])

    def guard(self, text: str) -> str:
        """A space before the colon of what reads like a speaker's name."""
        return self.headings.sub(r"\1 ", _with_newlines(text))


@dataclass(frozen=True)
class Headed(Dialogue):
    """A dialogue whose speakers stand between special tokens, which no text can spell."""

    lead: ClassVar[str] = ""

    def begin(self, system: str) -> list[Part]:
        return [*_header("system"), "\n\n", system, Special("</s>")] if system else []

    def guard(self, text: str) -> str:
        return _with_newlines(text)


def _header(speaker: str) -> tuple[Part, ...]:
    return (Special("<|start_header_id|>"), speaker, Special("<|end_header_id|>"))


def _with_newlines(text: str) -> str:
    return re.sub(r"\r\n?", "\n", text)


# Multimodal-GPT, mmgpt/datasets/*.py and app.py at 9c73e47.
MMGPT = Alpaca(
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

# X-PLUG/mPLUG-Owl at 0f3068f, README ("Model inference").
OWL = Dialogue(
    name="owl",
    system=(
        "The following is a conversation between a curious human and AI assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    opening=(),
    ending=(),
    before_image="\nHuman: ",
    after_image="",
    user="\nHuman: ",
    assistant="\nAI: ",
    headings=re.compile(r"(?m)^(\s*(?:Human|AI))(?=:)"),
    stops=("\nHuman:",),
)

# haotian-liu/LLaVA at c121f04, llava/conversation.py (`conv_llava_v1`).
LLAVA_V1 = Dialogue(
    name="llava_v1",
    system=(
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions."
    ),
    opening=(" USER: ",),
    ending=(Special("</s>"), "USER: "),
    before_image="",
    after_image="\n",
    user="",
    assistant=" ASSISTANT:",
    headings=re.compile(r"\b(USER|ASSISTANT)(?=:)"),
)

# HuggingFaceM4/idefics-9b-instruct: images stand between tokens of their own, neighbours share one.
IDEFICS = Dialogue(
    name="idefics_instruct",
    system="",
    opening=("User:",),
    ending=(Special("</s>"), "\nUser:"),
    before_image=Special("<fake_token_around_image>"),
    after_image="",
    user="",
    after_images=Special("<fake_token_around_image>"),
    assistant="\nAssistant:",
    asked=(Special("</s>"),),
    headings=re.compile(r"(?m)^(\s*(?:User|Assistant))(?=:)"),
    stops=("<end_of_utterance>", "\nUser:"),
)

# meta-llama/Llama-3.2-11B-Vision-Instruct, the chat template for conversations with images.
LLAMA_3 = Headed(
    name="llama_3",
    system="",
    opening=(*_header("user"), "\n\n"),
    ending=(Special("</s>"), *_header("user"), "\n\n"),
    before_image="",
    after_image="",
    user="",
    assistant="\n\n",
    asked=(Special("</s>"), *_header("assistant")),
    headings=re.compile(r"(?!)"),
)

TEMPLATES = {template.name: template for template in (MMGPT, OWL, LLAVA_V1, IDEFICS, LLAMA_3)}


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
