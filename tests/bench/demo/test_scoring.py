"""A free answer is marked right or wrong, however it is phrased."""

import random
import re

import pytest

from bench.demo.answer_terms import NUMBERS, terms_in
from bench.demo.dialogue import Turn
from bench.demo.kinds import KINDS, PAINTS, statement
from bench.demo.questions import SKILLS, example
from bench.demo.scoring import Expected, content_slots, hallucinated_kinds, score

EACH = 40

COUNT = Expected("count", subject="dog", number=3)
NONE = Expected("count", subject="dog", number=0)
RED = Expected("count", subject="circle", colour="red", number=2)
LEFT = Expected("relation", (("left",),), subject="dog", other="pizza")
YES = Expected("yes", subject="dog", number=1)
NO = Expected("yes", subject="dog", number=0)
CAPTION = Expected("caption", (("dog",), ("2 dog",), ("pizza",)), allowed=("dog", "pizza"))
ABSENT = Expected("absent", closed="colours", allowed=("dog", "red"), subject="cat")
MOO = Expected("part", content_slots("moo"), subject="cow")


@pytest.mark.parametrize(
    ("answer", "expected", "right"),
    [
        ("There are three dogs.", COUNT, 1),
        ("I can see 3 of them!", COUNT, 1),
        ("Three.", COUNT, 1),
        ("There are three dogs and two cats.", COUNT, 1),
        ("Five animals: two cats and three little dogs", COUNT, 1),
        ("There are two dogs and three cats.", COUNT, 0),
        ("There is a dog.", COUNT, 0),
        ("There are dogs.", COUNT, 0),
        ("", COUNT, 0),
        ("There are no dogs in the picture.", NONE, 1),
        ("I don't see any dogs, only two cats.", NONE, 1),
        ("None.", NONE, 1),
        ("Zero dogs.", NONE, 1),
        ("There is one dog.", NONE, 0),
        ("Two red circles and one blue circle.", RED, 1),
        ("One red circle and two blue circles.", RED, 0),
        ("The dog is to the left of the pizza.", LEFT, 1),
        ("The pizza is on the right of the dog.", LEFT, 1),
        ("It is on its left.", LEFT, 1),
        ("The pizza is to the left of the dog.", LEFT, 0),
        ("The dog is not left of the pizza.", LEFT, 0),
        ("The dog is left or right of the pizza.", LEFT, 0),
        ("Yes, there is.", YES, 1),
        ("There is one at the top.", YES, 1),
        ("No, there isn't.", NO, 1),
        ("I can't see one.", NO, 1),
        ("Yes.", NO, 0),
        ("The picture shows a cat.", YES, 0),
        ("The picture shows a cat.", NO, 0),
        ("No, only a cat.", NO, 1),
        ("", YES, 0),
        ("Two puppies beside a pizza.", CAPTION, 1),
        ("A dog and a pizza.", CAPTION, 2 / 3),
        ("Two dogs, a pizza and a cat.", CAPTION, 2 / 3),
        ("There is no cat in the picture.", ABSENT, 1),
        ("I do not see a cat, only a red dog.", ABSENT, 1),
        ("There is no cat, but a lion.", ABSENT, 0),
        ("The cat is red.", ABSENT, 0),
        ("The cat is not there, it is blue.", ABSENT, 0),
        ("It says moo.", MOO, 1),
        ("Cows go moo!", MOO, 1),
        ("A dog says moo.", MOO, 0),
        ("A cow does not say moo.", MOO, 0),
        ("Grey, I think.", Expected("all", (("grey",),), "colours"), 1),
        ("It is gray.", Expected("all", (("grey",),), "colours"), 1),
        ("It is red or grey.", Expected("all", (("grey",),), "colours"), 0),
        ("A hot dog.", Expected("all", (("dog",),), "kinds"), 0),
        ("An aubergine.", Expected("all", (("aubergine",),), "kinds"), 1),
        ("It's an eggplant", Expected("all", (("aubergine",),), "kinds"), 1),
        ("The sign says 'open'.", Expected("all", (("OPEN",),)), 1),
        ("The sign says opening.", Expected("all", (("OPEN",),)), 0),
        ("The top hat is at the bottom.", Expected("all", (("bottom",),), "regions"), 1),
    ],
)
def test_phrasings(answer: str, expected: Expected, right: float) -> None:
    assert score(answer, expected) == pytest.approx(right)


def turns(skill: str) -> list[Turn]:
    found = [example(skill, split, i) for split in ("train", "test") for i in range(EACH)]
    return [turn for one in found for turn in one.turns]


@pytest.mark.parametrize("skill", SKILLS)
def test_the_answers_that_are_trained_are_right_long_and_short(skill: str) -> None:
    for turn in turns(skill):
        assert score(turn.answer, turn.expected) == 1, turn
        assert score(turn.short, turn.expected) == 1, turn
        assert score(turn.answer.upper(), turn.expected) == 1, turn
        assert score("", turn.expected) == 0, turn


@pytest.mark.parametrize("skill", SKILLS)
def test_an_answer_with_one_thing_wrong_is_not_right(skill: str) -> None:
    rng = random.Random(skill)
    for turn in turns(skill):
        wrong = spoil(turn, rng)
        assert score(wrong, turn.expected) < 1, (turn, wrong)


def test_hallucinated_kinds_of_a_caption_are_found() -> None:
    assert hallucinated_kinds("Two dogs, a pizza and a whale.", CAPTION) == ["whale"]
    assert hallucinated_kinds("Two dogs.", CAPTION) == []


@pytest.mark.parametrize("skill", SKILLS)
def test_what_is_expected_can_be_stored(skill: str) -> None:
    for turn in turns(skill)[:10]:
        assert Expected.from_json(turn.expected.to_json()) == turn.expected


def swapped(text: str, terms: dict[str, str]) -> str:
    pattern = rf"(?i)\b({'|'.join(map(re.escape, terms))})\b"
    return re.sub(pattern, lambda found: terms[found[1].lower()], text)


def spoil(turn: Turn, rng: random.Random) -> str:
    """The right answer with a colour, number, kind, direction or word exchanged."""
    expected, answer = turn.expected, turn.answer
    if expected.check == "count":
        other = NUMBERS[rng.choice([n for n in range(1, 8) if n != expected.number])]
        return swapped(answer, dict.fromkeys(("no", *NUMBERS), other))
    if expected.check == "yes":
        return "No, there is none." if expected.number else "Yes, there is one."
    if expected.check == "absent":
        return f"The {expected.subject} is on the left."
    if expected.check == "part":
        return other_fact(turn, rng)
    if expected.check == "caption" or expected.closed == "kinds":
        kind = rng.choice([kind for kind in terms_in(answer, "kinds") if right(kind, turn)])
        absent = [k for k in KINDS if k not in terms_in(answer, "kinds") and not right(k, turn)]
        words = dict.fromkeys((word.lower() for word in KINDS[kind].words), rng.choice(absent))
        return swapped(answer, words)
    if expected.check in ("relation", "first") or expected.closed == "regions":
        ends = ("left", "right", "top", "bottom", "first", "second", "above", "below")
        turned = dict(zip(ends, [ends[i ^ 1] for i in range(len(ends))], strict=True))
        return swapped(answer, {"middle": "left"} | turned)
    if expected.closed == "colours":
        colour = expected.slots[0][0]
        return swapped(answer, {colour: rng.choice([c for c in PAINTS if c != colour])})
    return re.sub(rf"(?i){re.escape(expected.slots[0][0])}", "xyz", answer)


def right(kind: str, turn: Turn) -> bool:
    return any(kind in slot for slot in turn.expected.slots)


def other_fact(turn: Turn, rng: random.Random) -> str:
    kind = KINDS[turn.expected.subject]
    one = next(r for r in kind.relations if content_slots(kind.fact(r.name)) == turn.expected.slots)
    others = [k for k in KINDS.values() if k.fact(one.name) not in ("", kind.fact(one.name))]
    return statement(rng.choice(others), one)
