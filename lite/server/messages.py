"""Messages of a chat request as turns of the model's template.

Contract: pure, and linear in the length of the messages; knows the API's messages and the order
that the template can show. No message is dropped: what the template has no place for becomes text
of the turn that it belongs to, or is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from lite.server.errors import Refused
from lite.server.protocol import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    ToolMessage,
    UserMessage,
)

# What is asked about an image that came without words.
DESCRIBE = "Describe the image."


@dataclass
class Turn:
    """One question with the addresses of its images; the last one has no answer yet.

    Attributes:
        described: the images came without words, and the question is ours.
        prefix: of the last turn, what its answer goes on from.
    """

    question: str = ""
    images: list[str] = field(default_factory=list)
    answer: str | None = None
    described: bool = False
    prefix: str = ""


@dataclass
class _Open:
    """A turn whose texts are still being collected."""

    asked: list[str] = field(default_factory=list)
    images: list[str] = field(default_factory=list)
    answered: list[str] | None = None

    def turn(self) -> Turn:
        question = _joined(self.asked)
        described = bool(self.images) and not question.strip()
        answer = None if self.answered is None else _joined(self.answered)
        return Turn(DESCRIBE if described else question, self.images, answer, described)


def conversation_turns(messages: list[Message]) -> tuple[str | None, list[Turn]]:
    """The opening line, if there is one, and the turns.

    Neighbouring messages of one role are joined by an empty line. A turn's images come before its
    text, which is where the template has them. A system message after the first turn has begun is a
    part of the next question, and so is what a tool returned; an assistant's message before all
    others answers an empty question, and one after all others is what the answer goes on from.

    Raises:
        Refused: an order that the template cannot show.
    """
    opening: list[str] = []
    turns: list[_Open] = []
    asks = False  # whether the last turn has a question of the user's, or a tool's result
    for i, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            if not turns:
                turns.append(_Open())
            turns[-1].answered = [*(turns[-1].answered or ()), *_answer(message)]
            asks = False
            continue
        if isinstance(message, SystemMessage) and not turns:
            opening.append(_text(message.content))
            continue
        if isinstance(message, ToolMessage) and not turns:
            raise _refused(i, "a tool message must follow an assistant's tool_calls")
        if not turns or turns[-1].answered is not None:
            turns.append(_Open())
        _ask(turns[-1], message)
        asks = asks or not isinstance(message, SystemMessage)
    goes_on = isinstance(messages[-1], AssistantMessage) and bool(turns[-1].asked)
    if not (asks or goes_on):
        raise _refused(len(messages) - 1, "the last message must be the user's or an answer to it")
    made = [turn.turn() for turn in turns]
    if goes_on:
        made[-1].prefix, made[-1].answer = made[-1].answer or "", None
    return _joined(opening) if opening else None, made


def _ask(turn: _Open, message: SystemMessage | UserMessage | ToolMessage) -> None:
    if isinstance(message, ToolMessage):
        name = f" of {message.name}" if message.name else ""
        turn.asked.append(f"Result{name}: {_text(message.content)}")
        return
    content = message.content
    if isinstance(message, UserMessage):
        if not isinstance(content, str):
            turn.images += [part.url for part in content if isinstance(part, ImagePart)]
        turn.images += [_address(image) for image in message.images or ()]
    turn.asked.append(_text(content))


def _answer(message: AssistantMessage) -> list[str]:
    calls = [call.function for call in message.tool_calls or ()]
    calls += [message.function_call] if message.function_call else []
    return [
        _text(message.content or ""),
        *(f"Call of {call.name} with {call.arguments}" for call in calls),
    ]


def _address(image: str) -> str:
    """An image as Ollama's clients send it, as an address."""
    return image if ":" in image[:8] else f"data:;base64,{image}"


def _text(content: str | Iterable[TextPart | ImagePart]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text)


def _refused(i: int, why: str) -> Refused:
    return Refused(400, f"messages.{i}: {why}.", f"messages.{i}", "invalid_value")
