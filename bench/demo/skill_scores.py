"""Scores of a model on the demo's skills: of single answers, and statistics of them.

Contract: anything with the two members of `Answerer` can be scored, a bundle or a torch model. Each
turn follows the model's own earlier answers, never the reference answers. Statistics depend on the
scores alone, so that several models can be compared on the same examples.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from statistics import fmean, stdev
from typing import Any, Protocol

from PIL import Image

import lite
from bench.demo.answer_terms import is_negative, normalized
from bench.demo.dialogue import Dialogue
from bench.demo.draw import draw
from bench.demo.kinds import KINDS
from bench.demo.questions import SKILLS, example
from bench.demo.scoring import Expected, hallucinated_kinds, score

MAX_TOKENS = 160
# 97.5 % quantile of the normal distribution, for intervals of 95 %.
Z = 1.959964
SEEN = "none"


@dataclass(frozen=True)
class ChatTurn:
    """A turn of a conversation with a model.

    Attributes:
        question: of the user.
        pictures: shown before the question.
        answer: the model's own; empty in the last turn.
    """

    question: str
    pictures: tuple[Image.Image, ...] = ()
    answer: str = ""


class Answerer(Protocol):
    """What can be asked.

    Attributes:
        side: of the pictures that it sees, in pixels.
    """

    @property
    def side(self) -> int: ...

    def answer(self, turns: Sequence[ChatTurn]) -> str:
        """The answer to the last turn, greedily.

        Args:
            turns: a conversation from its beginning. Those of one conversation come in order, each
                call with one turn more than the one before, and no other conversation in between.
        """
        ...


class BundleAnswerer:
    """A bundle as an `Answerer`.

    Each conversation has a KV cache of its own: with 8-bit activations a prefix that was computed
    for another one may differ in its last bits, and answers must not depend on what was asked
    before.
    """

    def __init__(self, model: lite.Model) -> None:
        self._model = model
        self._begin()

    def _begin(self) -> None:
        self._chat = lite.Chat(self._model, decoder=self._model.decoder.fork())
        self._asked = 0

    @property
    def side(self) -> int:
        return self._model.bundle.manifest.preprocessing.size

    def answer(self, turns: Sequence[ChatTurn]) -> str:
        if len(turns) == 1:
            self._begin()
        if self._asked != len(turns) - 1:
            raise ValueError("turns of a conversation come in order, each call with one more")
        self._asked += 1
        last = turns[-1]
        # Whether guessed tokens run depends on measured times, and splits runs: see above.
        pieces = self._chat.ask(
            last.question, list(last.pictures), max_tokens=MAX_TOKENS, prompt_lookup=False
        )
        return "".join(piece.text for piece in pieces)


@dataclass(frozen=True)
class Mark:
    """One answer and its score.

    Attributes:
        example: id of the dialogue.
        skill, novelty: of the dialogue; novelty `SEEN` where nothing but the scene is new.
        question, answer, expected: of the turn.
        score: from 0.0 to 1.0.
    """

    example: str
    skill: str
    novelty: str
    question: str
    answer: str
    expected: Expected
    score: float


def sample(
    each: int, split: str = "test", seed: int = 0, skills: Iterable[str] = SKILLS
) -> list[Dialogue]:
    """The first examples of each skill."""
    return [example(skill, split, number, seed) for skill in skills for number in range(each)]


def score_bundle(
    model: lite.Model | Answerer,
    examples: Iterable[Dialogue],
    asked: Callable[[], None] = lambda: None,
) -> list[Mark]:
    """Ask a model all turns of some examples.

    Args:
        model: a bundle as `lite.load` opens it, or any `Answerer`.
        examples: of `bench.demo.questions.example`.
        asked: called after each example.

    Returns:
        A mark for each turn, in the order of the examples.

    Raises:
        BadInput: the fonts that scenes are drawn with are not installed.
    """
    answerer = BundleAnswerer(model) if isinstance(model, lite.Model) else model
    marks: list[Mark] = []
    for one in examples:
        marks += _ask(answerer, one)
        asked()
    return marks


def _ask(answerer: Answerer, one: Dialogue) -> Iterator[Mark]:
    history: list[ChatTurn] = []
    for turn in one.turns:
        pictures = tuple(draw(scene, answerer.side) for scene in turn.scenes)
        history.append(ChatTurn(turn.question, pictures))
        answer = answerer.answer(history)
        history[-1] = replace(history[-1], answer=answer)
        value = score(answer, turn.expected)
        novelty = one.novelty or SEEN
        yield Mark(one.id, one.skill, novelty, turn.question, answer, turn.expected, value)


def summary(marks: Sequence[Mark]) -> dict[str, Any]:
    """Figures by skill, and the mean of the skills under `mean`."""
    skills = {skill: [mark for mark in marks if mark.skill == skill] for skill in SKILLS}
    found = {skill: figures(own) for skill, own in skills.items() if own}
    return {"mean": round(fmean(one["score"] for one in found.values()), 1), "skills": found}


def figures(marks: Sequence[Mark]) -> dict[str, Any]:
    """Figures of one skill; rates are in percent."""
    examples = by_example(marks)
    mean = fmean(mark.score for mark in marks)
    novelties = dict.fromkeys(mark.novelty for mark in marks)
    found: dict[str, Any] = {
        "score": percent(mean),
        "interval": [percent(end) for end in wilson(mean, len(examples))],
        "examples": len(examples),
        "turns": len(marks),
        "novelty": {name: _of_novelty(marks, name) for name in novelties},
        "reply_words": round(fmean(len(mark.answer.split()) for mark in marks), 1),
    }
    if any(len(own) > 1 for own in examples.values()):
        whole = [min(mark.score for mark in own) == 1 for own in examples.values()]
        found["whole_dialogues"] = percent(fmean(whole))
    captions = [mark for mark in marks if mark.expected.check == "caption"]
    if captions:
        found["captions"] = _captions(captions)
    if {mark.skill for mark in marks} == {"presence"}:
        found["presence"] = _presence(marks)
    if {mark.skill for mark in marks} == {"reading"}:
        found["exact_words"] = percent(fmean(map(_exact, marks)))
    return found


def difference(marks: Sequence[Mark], base: Sequence[Mark]) -> dict[str, Any]:
    """What two models differ in on the same examples, in points, with a paired interval of 95 %.

    Raises:
        ValueError: the examples are not the same.
    """
    if [mark.question for mark in marks] != [mark.question for mark in base]:
        raise ValueError("marks of the same examples can be compared, no others")
    found: dict[str, Any] = {}
    for skill in dict.fromkeys(mark.skill for mark in marks):
        pairs = [(m, b) for m, b in zip(marks, base, strict=True) if m.skill == skill]
        gaps = [
            fmean(m.score - b.score for m, b in own)
            for _, own in groupby(pairs, key=lambda pair: pair[0].example)
        ]
        error = Z * stdev(gaps) / math.sqrt(len(gaps)) if len(gaps) > 1 else 1.0
        found[skill] = {
            "points": percent(fmean(gaps)),
            "plus_minus": percent(error),
            "same_answers": percent(fmean(m.answer == b.answer for m, b in pairs)),
        }
    return found


def by_example(marks: Sequence[Mark]) -> dict[str, list[Mark]]:
    """Marks by the id of their dialogue."""
    return {name: list(own) for name, own in groupby(marks, key=lambda mark: mark.example)}


def percent(part: float) -> float:
    return round(100 * part, 1)


def wilson(mean: float, n: int, z: float = Z) -> tuple[float, float]:
    """An interval for a mean of `n` values from 0 to 1 (Wilson 1927, JASA 22), of 95 % by default.

    It is meant for yes and no, which vary most, and so holds for parts as well; turns of one
    dialogue are not independent, therefore n counts dialogues.
    """
    middle = (mean + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(mean * (1 - mean) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _of_novelty(marks: Sequence[Mark], name: str) -> dict[str, Any]:
    own = [mark for mark in marks if mark.novelty == name]
    return {"score": percent(fmean(mark.score for mark in own)), "examples": len(by_example(own))}


def _captions(marks: Sequence[Mark]) -> dict[str, float]:
    """Slots that are said, and captions that name what is not there (Rohrbach 2018, CHAIR_s)."""
    # With every kind allowed, the score is what was found, without what was invented.
    recalls = [score(m.answer, replace(m.expected, allowed=tuple(KINDS))) for m in marks]
    inventions = [len(hallucinated_kinds(m.answer, m.expected)) for m in marks]
    return {
        "slot_recall": percent(fmean(recalls)),
        "invented_per_caption": round(fmean(inventions), 3),
        "captions_with_invented": percent(fmean(number > 0 for number in inventions)),
    }


def _presence(marks: Sequence[Mark]) -> dict[str, float]:
    """F1 of "yes" and how often it is said (Li 2023, POPE); the truth is yes half of the time."""
    yes = [bool(normalized(mark.answer)) and not is_negative(mark.answer) for mark in marks]
    there = [mark.expected.number == 1 for mark in marks]
    hits = sum(mark.score == 1 for mark, is_there in zip(marks, there, strict=True) if is_there)
    false = sum(says_yes and not is_there for says_yes, is_there in zip(yes, there, strict=True))
    missed = sum(there) - hits
    return {
        "f1": percent(2 * hits / max(1, 2 * hits + false + missed)),
        "yes_ratio": percent(fmean(yes)),
        "yes_ratio_of_truth": percent(fmean(there)),
    }


def _exact(mark: Mark) -> bool:
    """Whether the word is there letter by letter, capitals included."""
    word = re.escape(mark.expected.slots[0][0])
    return re.search(rf"(?<!\w){word}(?!\w)", mark.answer) is not None
