"""Terms of a free answer: kinds, colours, numbers, directions, yes or no.

Contract: from text to terms, in order. It knows the vocabulary of the scenes with usual synonyms,
and no picture.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.demo.kinds import KINDS, PAINTS

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_AS_NUMBER = (
    {word: i for i, word in enumerate(NUMBERS)}
    | {str(i): i for i in range(11)}
    | {"no": 0, "a": 1, "an": 1, "single": 1, "couple": 2}
)
COLOURS = {colour: colour for colour in PAINTS} | {"gray": "grey", "violet": "purple"}
DIRECTIONS = {
    "left": "left",
    "right": "right",
    "above": "above",
    "over": "above",
    "below": "below",
    "under": "below",
    "beneath": "below",
    "underneath": "below",
}
REGIONS = {word: word for word in ("top", "bottom", "left", "right", "middle")} | {
    "upper": "top",
    "lower": "bottom",
    "centre": "middle",
    "center": "middle",
}
ORDERS = {"first": "first", "second": "second", "1st": "first", "2nd": "second"}
NAMES = {word.lower(): kind.name for kind in KINDS.values() for word in kind.words}
# Longest first, so that a hot dog is no dog.
_KIND = re.compile(
    rf"(?<![\w-])({'|'.join(map(re.escape, sorted(NAMES, key=len, reverse=True)))})(?![\w-])"
)
_NO = re.compile(r"\b(no|not|none|nothing|never|neither|nor|without|cannot|zero)\b")
_VOCABULARIES = {"colours": COLOURS, "directions": DIRECTIONS, "regions": REGIONS, "orders": ORDERS}


@dataclass(frozen=True)
class Mention:
    """A kind that is named: its number if one stands before it, and the words up to the name."""

    kind: str
    number: int | None
    between: tuple[str, ...]


def normalized(text: str) -> str:
    """Lower case, without punctuation; "n't" is "not"."""
    text = text.lower().replace("\u2019", "'").replace("can't", "cannot").replace("n't", " not")
    return re.sub(r"\s+", " ", re.sub(r"(?<!\w)[-']|[-'](?!\w)|[^\w\s'-]", " ", text)).strip()


def terms_in(text: str, vocabulary: str) -> list[str]:
    """Terms of a vocabulary (kinds, colours, directions, regions, orders), each as it comes."""
    if vocabulary == "kinds":
        return [named.kind for named in kind_mentions(text)]
    terms = _VOCABULARIES[vocabulary]
    # Without names, as a top hat is not at the top.
    words = _KIND.sub(" ", normalized(text))
    return [terms[word] for word in words.split() if word in terms]


def mention_spans(text: str) -> list[tuple[int, int, str, str]]:
    """Where kinds are named: first character, the one after the last, kind, and colour or ""."""
    lower, found = text.lower(), []
    for match in _KIND.finditer(lower):
        before = re.search(r"([a-z]+) $", lower[: match.start()])
        colour = COLOURS.get(before[1], "") if before else ""
        start = match.start() - (len(before[0]) if before and colour else 0)
        found.append((start, match.end(), NAMES[match[1]], colour))
    return found


def is_negative(text: str) -> bool:
    """Whether an answer is negative: by its first word, or by any if that is no yes or no."""
    words = normalized(text)
    if words.startswith("yes"):
        return False
    return bool(_NO.search(words))


def kind_mentions(text: str) -> list[Mention]:
    """Kinds in the order in which they are named, with their numbers."""
    words, found, end = normalized(text), [], 0
    for match in _KIND.finditer(words):
        before = words[end : match.start()].split()[-4:]
        end = match.end()
        found.append(Mention(NAMES[match[1]], *_number(before, is_negative(text))))
    return found


def _number(before: list[str], denied: bool) -> tuple[int | None, tuple[str, ...]]:
    """The number nearest before a name, and the words between the two."""
    for back in range(1, len(before) + 1):
        word = before[-back]
        between = tuple(before[len(before) - back + 1 :])
        if word == "any" and denied:
            return 0, between
        # "not a single", "a single", "a couple of"
        if word in ("a", "an") and denied and before[-back - 1 : -back] == ["not"]:
            return 0, between
        if word == "and":
            return None, between
        if word in _AS_NUMBER:
            return _AS_NUMBER[word], between
    return None, tuple(before)


def numbers_in(text: str) -> list[int]:
    """Numbers that stand anywhere, but for articles."""
    return [
        _AS_NUMBER[word]
        for word in normalized(text).split()
        if word in _AS_NUMBER and word not in ("a", "an", "no")
    ]


def contains_phrase(text: str, phrase: str) -> bool:
    """Whether a phrase is in a text, as whole words."""
    return f" {normalized(phrase)} " in f" {normalized(text)} "
