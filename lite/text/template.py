"""Prompt templates: how a conversation becomes text and special tokens.

Contract: the one copy of the template that training and chat share, and data: a bundle's manifest
holds all of it, so a prompt that is new to this version needs no newer one. A template returns
parts for `lite.text.tokenizer.Tokenizer.encode`, so that text written by a person can never become
a special token; `escape` keeps it from passing for one of the template's headings either.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from lite.errors import BadInput
from lite.text.tokenizer import IMAGE, Special

Part = str | Special
Parts = tuple[Part, ...]
# Of a field of a template, in characters or items; the known ones stay below a tenth of it.
MAX_FIELD = 4096


@dataclass(frozen=True)
class Template:
    """How turns are written.

    The parts of a conversation are, in this order: `before_system`, the system line and
    `after_system`; then for each turn `first_turn` or `later_turn`; for each of its images
    `before_image`, `<image>` and `after_image`; `after_images`; `before_question`, the question,
    `after_question`; and the answer, which begins with `answer_prefix`.

    Attributes:
        name: what people call it; nothing depends on it.
        system: the default system line; where it is empty, nothing stands before the first turn.
        before_context: between a question and the text that it is about; empty where that text
            stands before the question, on lines of its own.
        answer_prefix: a part of the answer's tokens, but not shown.
        stops: texts at which an answer ends, because they would open a new turn.
        headings: regular expression with one group, of what in a text reads like a heading of
            this template: a space goes behind the group (`escape`). Empty where turns are opened
            by special tokens, which no text can spell.
        strips: whether whitespace next to a special token is left out (`lite.text.tokenizer`).
    """

    name: str
    system: str
    before_system: Parts = ()
    after_system: Parts = ()
    first_turn: Parts = ()
    later_turn: Parts = ()
    before_image: Parts = ()
    after_image: Parts = ()
    after_images: Parts = ()
    before_question: Parts = ()
    before_context: str = ""
    after_question: Parts = ()
    answer_prefix: str = ""
    stops: tuple[str, ...] = ()
    headings: str = ""
    strips: bool = False

    def begin(self, system: str) -> list[Part]:
        """The system line, as what stands before the first turn."""
        return [*self.before_system, system, *self.after_system] if system else []

    def turn(
        self, text: str, images: int = 0, context: str = "", *, first: bool = True
    ) -> list[Part]:
        """One question, its images before it, up to where the answer starts.

        Args:
            text: the question.
            images: how many are shown before it.
            context: what the question is about; empty for none.
            first: it follows the system line, and not an answer.
        """
        shown = [*self.before_image, IMAGE, *self.after_image] * images
        parts: list[Part] = [
            *(self.first_turn if first else self.later_turn),
            *shown,
            *(self.after_images if images else ()),
            *self.before_question,
            self._question(text, context),
            *self.after_question,
        ]
        return join([part for part in parts if part])

    def escape(self, text: str) -> str:
        """`text` with a space where it reads like a heading of the template.

        The token ids then differ from the heading's, so it cannot open or end a turn.
        """
        text = re.sub(r"\r\n?", "\n", text)
        return self._headings.sub(r"\1 ", text) if self.headings else text

    @property
    def specials(self) -> set[str]:
        """Names of the special tokens that it needs."""
        values = (getattr(self, field.name) for field in fields(self))
        parts = (part for value in values if isinstance(value, tuple) for part in value)
        return {IMAGE, *(part for part in parts if isinstance(part, Special))}

    def to_json(self) -> dict[str, Any]:
        """As the manifest keeps it: a special token is `{"special": name}`."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {key: _to_json(value) for key, value in values.items()}

    @classmethod
    def from_json(cls, data: Any) -> Template:
        """Read what `to_json` wrote.

        Raises:
            ValueError: a field is missing, unknown, or of another type.
        """
        if not isinstance(data, dict):
            raise ValueError(f"the template is {repr(data)[:80]} instead of an object")
        known = {field.name: field.type for field in fields(cls)}
        if wrong := sorted(known.keys() ^ data.keys()):
            how = "lacks" if wrong[0] in known else "has an unknown"
            raise ValueError(f"the template {how} {wrong[0]!r}")
        read = cls(**{name: _from_json(name, known[name], data[name]) for name in known})
        try:
            groups = read._headings.groups
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"the template's headings are no expression ({error})") from None
        if read.headings and groups < 1:
            raise ValueError("the template's headings lack a group")
        return read

    @cached_property
    def _headings(self) -> re.Pattern[str]:
        return re.compile(self.headings)

    def _question(self, text: str, context: str) -> str:
        if not context:
            return self.escape(text)
        if self.before_context:
            return f"{self.escape(text)}{self.before_context}{self.escape(context)}"
        return self.escape(f"{context}\n{text}")


def join(parts: list[Part]) -> list[Part]:
    """`parts` with neighbouring texts made one, as they must be tokenized together."""
    joined: list[Part] = []
    for part in parts:
        if joined and not isinstance(part, Special) and not isinstance(joined[-1], Special):
            joined[-1] += part
        else:
            joined.append(part)
    return joined


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return [{"special": str(v)} if isinstance(v, Special) else v for v in value]
    return value


def _from_json(name: str, kind: Any, value: Any) -> Any:
    """One field, whose annotation is `kind`. Raises ValueError, of half a character too."""
    if kind in ("str", "bool"):
        right = type(value).__name__ == kind
    else:
        right = type(value) is list
        value = tuple(_part(v, kind == "Parts") for v in value) if right else value
        right = right and None not in value
    if not right or (kind != "bool" and len(value) > MAX_FIELD):
        raise ValueError(f"the template's {name} is {repr(value)[:80]}")
    for text in (value,) if kind == "str" else value if kind != "bool" else ():
        text.encode()
    return value


def _part(value: Any, or_special: bool) -> Part | None:
    """A text, or where there may be one a special token; None for anything else."""
    if type(value) is str and len(value) <= MAX_FIELD:
        return value
    if or_special and type(value) is dict and [*value] == ["special"]:
        name = value["special"]
        return Special(name) if type(name) is str and name else None
    return None


_END = Special("</s>")


def _header(speaker: str) -> Parts:
    return (Special("<|start_header_id|>"), speaker, Special("<|end_header_id|>"), "\n\n")


# Multimodal-GPT, mmgpt/datasets/*.py and app.py at 9c73e47. U+2581 is how SentencePiece writes a
# space, so that in a text it gives the same token as one.
MMGPT = Template(
    name="mmgpt",
    system=(
        "Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request."
    ),
    before_image=("\n\n### Image:\n",),
    before_question=("\n\n### Instruction:\n",),
    before_context="\n\n### Input:\n",
    after_question=("\n\n### Response:\n",),
    stops=("\n\n### Image:", "\n\n### Instruction:", "\n\n### Response:"),
    headings="(?im)^()(?=#+(?:[^\\S\\n]|\u2581)*(?:image|instruction|input|response)\\b)",
    strips=True,
)

# X-PLUG/mPLUG-Owl at 0f3068f, README ("Model inference"). In all templates of named speakers an
# answer was a text of its own, or followed a colon: either way it began with a space.
OWL = Template(
    name="owl",
    system=(
        "The following is a conversation between a curious human and AI assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    ),
    before_image=("\nHuman: ",),
    before_question=("\nHuman: ",),
    after_question=("\nAI: ",),
    answer_prefix=" ",
    stops=("\nHuman:",),
    headings=r"(?m)^(\s*(?:Human|AI))(?=:)",
)

# haotian-liu/LLaVA at c121f04, llava/conversation.py (`conv_llava_v1`).
LLAVA_V1 = Template(
    name="llava_v1",
    system=(
        "A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions."
    ),
    first_turn=(" USER: ",),
    later_turn=(_END, "USER: "),
    after_image=("\n",),
    after_question=(" ASSISTANT:",),
    answer_prefix=" ",
    headings=r"\b(USER|ASSISTANT)(?=:)",
)

# HuggingFaceM4/idefics-9b-instruct: images stand between tokens of their own, neighbours share one.
IDEFICS = Template(
    name="idefics_instruct",
    system="",
    first_turn=("User:",),
    later_turn=(_END, "\nUser:"),
    before_image=(Special("<fake_token_around_image>"),),
    after_images=(Special("<fake_token_around_image>"),),
    after_question=(_END, "\nAssistant:"),
    answer_prefix=" ",
    stops=("<end_of_utterance>", "\nUser:"),
    headings=r"(?m)^(\s*(?:User|Assistant))(?=:)",
)

# meta-llama/Llama-3.2-11B-Vision-Instruct, the chat template for conversations with images.
LLAMA_3 = Template(
    name="llama_3",
    system="",
    before_system=_header("system"),
    after_system=(_END,),
    first_turn=_header("user"),
    later_turn=(_END, *_header("user")),
    after_question=(_END, *_header("assistant")),
)

TEMPLATES = {template.name: template for template in (MMGPT, OWL, LLAVA_V1, IDEFICS, LLAMA_3)}


def template(name: str) -> Template:
    """The known template called `name`.

    Raises:
        BadInput: this version has none of that name.
    """
    if name not in TEMPLATES:
        raise BadInput(
            f"The prompt template {name!r} is unknown to this version; "
            f"install a newer one or export the bundle again."
        )
    return TEMPLATES[name]
