"""Messages of a chat request as turns of the model's template.

Contract: pure; knows the API's messages and the order that the template can show.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lite.server.errors import Refused
from lite.server.protocol import (
    AssistantMessage,
    ImagePart,
    Message,
    SystemMessage,
    TextPart,
    UserMessage,
)


@dataclass
class Turn:
    """One question with the addresses of its images; the last one has no answer yet."""

    question: str = ""
    images: list[str] = field(default_factory=list)
    answer: str | None = None


def conversation_turns(messages: list[Message]) -> tuple[str | None, list[Turn]]:
    """The opening line, if there is one, and the turns.

    Neighbouring messages of one role are joined by an empty line. A turn's images come before its
    text, which is where the template has them.

    Raises:
        Refused: an order that the template cannot show.
    """
    opening = [_text(m.content) for m in messages if isinstance(m, SystemMessage)]
    turns: list[Turn] = []
    for i, message in enumerate(messages):
        if isinstance(message, SystemMessage):
            if turns:
                raise _refused(i, "a system message must come before all others")
        elif isinstance(message, UserMessage):
            if not turns or turns[-1].answer is not None:
                turns.append(Turn())
            _add(turns[-1], message)
        else:
            _answered(turns, i, message)
    if not turns or turns[-1].answer is not None:
        raise _refused(len(messages) - 1, "the last message must be the user's")
    return "\n\n".join(opening) if opening else None, turns


def _add(turn: Turn, message: UserMessage) -> None:
    content = message.content
    if not isinstance(content, str):
        turn.images += [part.image_url.url for part in content if isinstance(part, ImagePart)]
        content = _text([part for part in content if isinstance(part, TextPart)])
    turn.question = _join(turn.question, content)


def _answered(turns: list[Turn], i: int, message: AssistantMessage) -> None:
    if not turns:
        raise _refused(i, "the first message after the system's must be the user's")
    content = _text(message.content or "")
    before = turns[-1].answer
    turns[-1].answer = content if before is None else _join(before, content)


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "\n".join(part.text for part in content)


def _join(before: str, text: str) -> str:
    return f"{before}\n\n{text}" if before and text else before or text


def _refused(i: int, why: str) -> Refused:
    return Refused(400, f"messages.{i}: {why}.", f"messages.{i}", "invalid_value")
