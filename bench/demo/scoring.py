"""Whether a free answer is right.

Contract: `score(answer, expected)` is 1.0 for a right answer in any phrasing and 0.0 for a wrong
one; captions and facts give the share of right parts. An `Expected` is plain data, so that it can
be stored beside the question.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from bench.demo.answer_terms import (
    contains_phrase,
    is_negative,
    kind_mentions,
    normalized,
    numbers_in,
    terms_in,
)
from bench.demo.world import OPPOSITE

Slots = tuple[tuple[str, ...], ...]
_FUNCTION_WORDS = """
a an the and or of in on at to from with for by it its is are that which who into up as can he she
they their his her almost where when before after round
"""
_STOP = frozenset(_FUNCTION_WORDS.split())


@dataclass(frozen=True)
class Expected:
    """What a right answer says.

    Attributes:
        check: one of `CHECKS`.
        slots: required terms; any alternative of a slot serves.
        closed: a vocabulary (`bench.demo.answer_terms.terms_in`) of which no other term may occur.
        allowed: further terms of it that may occur.
        subject, other: kinds that the question is about.
        colour: of the subject, where the question gives it.
        number: a count, or how many of the slots are enough.
    """

    check: str
    slots: Slots = ()
    closed: str = ""
    allowed: tuple[str, ...] = ()
    subject: str = ""
    other: str = ""
    colour: str = ""
    number: int = 0

    def to_json(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Expected:
        """The inverse of `to_json`, before or after JSON made lists of tuples."""
        fixed = dict(stored)
        fixed["slots"] = tuple(tuple(slot) for slot in stored.get("slots", ()))
        fixed["allowed"] = tuple(stored.get("allowed", ()))
        return cls(**fixed)


def score(answer: str, expected: Expected) -> float:
    """How right an answer is, from 0.0 to 1.0."""
    return float(CHECKS[expected.check](answer, expected))


def hallucinated_kinds(answer: str, expected: Expected) -> list[str]:
    """Kinds that a caption names although they are not there."""
    there = {term for slot in expected.slots for term in slot} | set(expected.allowed)
    return [kind for kind in dict.fromkeys(terms_in(answer, "kinds")) if kind not in there]


def content_slots(text: str) -> Slots:
    """A slot for each word of a text that carries meaning."""
    return tuple((word,) for word in normalized(text).split() if word not in _STOP)


def _has_unexpected(answer: str, expected: Expected) -> bool:
    """Whether a term of the closed vocabulary is said that is not expected."""
    if not expected.closed:
        return False
    fine = {term for slot in expected.slots for term in slot} | set(expected.allowed)
    return any(term not in fine for term in terms_in(answer, expected.closed))


def _found(answer: str, expected: Expected) -> int:
    terms = set(terms_in(answer, expected.closed)) if expected.closed else set()
    return sum(
        any(one in terms or (not expected.closed and contains_phrase(answer, one)) for one in slot)
        for slot in expected.slots
    )


def _all(answer: str, expected: Expected) -> bool:
    return _found(answer, expected) == len(expected.slots) and not _has_unexpected(answer, expected)


def _part(answer: str, expected: Expected) -> float:
    """The part of a fact's words that is said; none if it denies, or names another kind."""
    denied = is_negative(answer) and not any(
        is_negative(one) for slot in expected.slots for one in slot
    )
    other = {*terms_in(answer, "kinds")} - {expected.subject, *expected.allowed}
    if not expected.slots or denied or other:
        return 0.0
    return _found(answer, expected) / len(expected.slots)


def _enough(answer: str, expected: Expected) -> bool:
    """So many of the slots, whichever; nothing else of the closed vocabulary."""
    return _found(answer, expected) >= expected.number and not _has_unexpected(answer, expected)


def _yes(answer: str, expected: Expected) -> bool:
    """Number 1 for yes, 0 for no; talk of another thing alone is neither."""
    words, named = normalized(answer), terms_in(answer, "kinds")
    plainly = words.startswith(("yes", "no "))
    if not words or (expected.subject and named and not plainly and expected.subject not in named):
        return False
    return is_negative(answer) is (expected.number == 0)


def _absent(answer: str, expected: Expected) -> bool:
    """It says that the subject is not there, and claims nothing else that is wrong."""
    if not is_negative(answer) or _has_unexpected(answer, expected):
        return False
    there = {n.kind for n in kind_mentions(answer) if n.number != 0} - {expected.subject}
    return there <= set(expected.allowed)


def _count(answer: str, expected: Expected) -> bool:
    numbers = [
        named.number
        for named in kind_mentions(answer)
        if named.kind == expected.subject
        and named.number is not None
        and not (
            expected.colour
            and set(terms_in(" ".join(named.between), "colours")) - {expected.colour}
        )
    ]
    if not numbers:
        numbers = list(dict.fromkeys(numbers_in(answer)))
        if not numbers:
            return is_negative(answer) and expected.number == 0
        if len(numbers) > 1:
            return False
    return all(number == expected.number for number in numbers)


def _relation(answer: str, expected: Expected) -> bool:
    """A direction, of the subject from the other or the opposite the other way round."""
    directions = set(terms_in(answer, "directions"))
    named = [k for k in terms_in(answer, "kinds") if k in (expected.subject, expected.other)]
    right = expected.slots[0][0]
    if named and named[0] == expected.other and expected.subject in named:
        right = OPPOSITE[right]
    return directions == {right} and not is_negative(answer)


def _first(answer: str, expected: Expected) -> bool:
    """The first term of the closed vocabulary that is said is the right one."""
    terms = terms_in(answer, expected.closed)
    return bool(terms) and terms[0] in expected.slots[0]


def _final(answer: str, expected: Expected) -> bool:
    """The answer ends with a slot, or says that it is that."""
    words = f" {normalized(answer)}"
    terms = [normalized(one) for one in expected.slots[0]]
    forms = [(f" {one}", f"is {one}", f"are {one}") for one in terms]
    return any(
        words.endswith(end) or contains_phrase(words, be) or contains_phrase(words, pl)
        for end, be, pl in forms
    )


def _times(answer: str, expected: Expected) -> bool:
    """The word so many times, and nothing else."""
    return normalized(answer).split() == [expected.slots[0][0]] * expected.number


def _caption(answer: str, expected: Expected) -> float:
    """Slots that are said, less what is invented, as a part of all slots.

    A slot "3 dog" wants the number with the name, "red circle" the colour, `"open"` a word.
    """
    named = kind_mentions(answer)
    hits = sum(any(_captioned(answer, named, term) for term in slot) for slot in expected.slots)
    there = set(expected.allowed)
    wrong = {n.kind for n in named} - there
    return max(0.0, hits - len(wrong)) / max(1, len(expected.slots))


def _captioned(answer: str, named: list[Any], term: str) -> bool:
    if term.startswith('"'):
        return contains_phrase(answer, term)
    first, _, kind = term.partition(" ")
    if re.fullmatch(r"\d+", first):
        return any(n.kind == kind and n.number == int(first) for n in named)
    colour, _, kind = term.partition(":")
    if kind:
        return any(
            n.kind == kind and colour in terms_in(" ".join(n.between), "colours") for n in named
        )
    return any(n.kind == term for n in named)


CHECKS: dict[str, Callable[[str, Expected], float | bool]] = {
    "all": _all,
    "part": _part,
    "enough": _enough,
    "yes": _yes,
    "absent": _absent,
    "count": _count,
    "relation": _relation,
    "first": _first,
    "caption": _caption,
    "final": _final,
    "times": _times,
}
