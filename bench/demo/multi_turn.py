"""Skills of several turns and several pictures.

Contract: as `bench.demo.perception`; later turns refer to earlier ones ("it", "the first
picture").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.demo.answer_terms import NUMBERS
from bench.demo.dialogue import (
    CATEGORY_NOUNS,
    Sampler,
    Turn,
    contents,
    is_are,
    quantity,
    region_phrase,
    sentence,
    sharing_image,
    unique_things,
)
from bench.demo.kinds import KINDS, Look, a
from bench.demo.perception import (
    DESCRIBE,
    caption_expected,
    caption_of,
    count_turn,
    presence_turn,
    reading_turn,
)
from bench.demo.positions import SIDES, colour_turn, naming_turn, region_turn
from bench.demo.scoring import Expected
from bench.demo.world import Scene, Thing, Unfit, outermost

ORDERS = ("first", "second")


def dialogue(sampler: Sampler) -> list[Turn]:
    """Three turns about one picture, of which the later ones refer back."""
    opening = sampler.rng.choice((_about_a_side, _about_a_side, _about_presence, _about_a_word))
    return sharing_image(opening(sampler))


def _about_a_side(sampler: Sampler) -> list[Turn]:
    """What animal is on the left? What colour is it? And how many are there?"""
    rng = sampler.rng
    look, *others = sampler.looks(rng.choice((2, 2, 3)))
    scene = sampler.scene([(look, rng.choice((1, 1, 2, 3))), *((other, 1) for other in others)])
    side = rng.choice(list(SIDES))
    thing = outermost(scene.things, side)
    if thing is None or thing.look != look:
        raise Unfit("another thing is outermost")
    category = CATEGORY_NOUNS.get(KINDS[thing.kind].category, "thing")
    first = naming_turn(sampler, scene, thing, category, region_phrase(SIDES[side]))
    later = [_how_many(sampler, scene, thing), _is_there_too(sampler, scene)]
    if thing.colour and scene.count(thing.kind, thing.colour) == scene.count(thing.kind):
        asked = _it(colour_turn(sampler, scene, thing, "it"), f"The {thing.kind}")
        later.insert(0, asked)
    return [first, *later[:2]]


def _it(turn: Turn, name: str) -> Turn:
    """The question says "it", the answer what that is."""
    return replace(turn, answer=turn.answer.replace("It ", f"{name} ", 1))


def _how_many(sampler: Sampler, scene: Scene, thing: Thing) -> Turn:
    number = scene.count(thing.kind)
    kind = KINDS[thing.kind]
    question = sampler.say(
        "And how many are there?", "How many of them do you see?", "How many of these are there?"
    )
    one = Look(kind.name)
    phrase = f"one {kind.name}" if number == 1 else f"{NUMBERS[number]} {kind.plural}"
    expected = Expected("count", subject=one.kind, number=number)
    answer = f"There {is_are(number)} {phrase} in the picture."
    return Turn(question, answer, sentence(f"{NUMBERS[number]}."), expected, (scene,))


def _is_there_too(sampler: Sampler, scene: Scene) -> Turn:
    turn = presence_turn(sampler, scene, sampler.rng.random() < 0.5)
    question = turn.question.replace("Is there", "Is there also", 1).replace(
        "you see", "you also see"
    )
    return replace(turn, question=question)


def _about_presence(sampler: Sampler) -> list[Turn]:
    """Is there a dog? Where is it? What else is there?"""
    looks = sampler.looks(sampler.rng.choice((2, 3)))
    scene = sampler.scene([(look, 1) for look in looks])
    thing = sampler.rng.choice(unique_things(scene))
    one = a(thing.kind)
    question = sampler.say(f"Is there {one} in the picture?", f"Can you see {one}?")
    answer = f"Yes, there is {one} in the picture."
    first = Turn(question, answer, "Yes.", Expected("yes", subject=thing.kind, number=1), (scene,))
    second = _it(region_turn(sampler, scene, thing, "it"), f"The {thing.kind}")
    rest = [look for look in looks if look.kind != thing.kind]
    return [first, second, _what_else(sampler, scene, thing, rest)]


def _what_else(sampler: Sampler, scene: Scene, thing: Thing, rest: Sequence[Look]) -> Turn:
    question = sampler.say(
        "What else is there?", "What else can you see?", "And what is beside it?"
    )
    others = tuple(t for t in scene.things if t is not thing)
    rest_of_it = contents(replace(scene, things=others))
    answer = f"Besides the {thing.kind} there {is_are(len(others))} {rest_of_it}."
    slots = tuple((look.kind,) for look in rest)
    expected = Expected("all", slots, "kinds", (thing.kind,))
    return Turn(question, answer, sentence(f"{rest_of_it}."), expected)


def _about_a_word(sampler: Sampler) -> list[Turn]:
    """What does it say? Which colour is it? How many dogs are beside it?"""
    look = sampler.looks(1)[0]
    number = sampler.rng.randint(1, 3)
    scene = sampler.scene([(look, number)], 1)
    word = scene.words[0]
    colour = _it(colour_turn(sampler, scene, word, "it"), "The word")
    return [reading_turn(sampler, scene, word), colour, count_turn(sampler, scene, look, number)]


def pairs(sampler: Sampler) -> list[Turn]:
    """Two pictures that are compared: shown at once, or one after the other."""
    one, first, second = sampler.looks(3)
    if sampler.rng.random() < 0.5:
        return sampler.rng.choice((_more, _which, _common))(sampler, one, first, second)
    return _later(sampler, one, first, second)


def _more(sampler: Sampler, one: Look, first: Look, second: Look) -> list[Turn]:
    """Which picture shows more of a kind."""
    numbers = sampler.rng.sample(range(1, 6), 2)
    groups = [
        [(one, number), (other, 1)] for number, other in zip(numbers, (first, second), strict=True)
    ]
    scenes = tuple(sampler.scene(group) for group in groups)
    winner = ORDERS[numbers[1] > numbers[0]]
    plural = quantity(one, 2).partition(" ")[2]
    question = sampler.say(
        f"Which picture shows more {plural}?", f"In which image are more {plural}?"
    )
    most = quantity(one, max(numbers), "one")
    answer = f"The {winner} picture shows more {plural}: there are {most} in it."
    return [Turn(question, answer, f"The {winner}.", _order(winner), scenes)]


def _order(winner: str) -> Expected:
    return Expected("first", ((winner,),), "orders")


def _which(sampler: Sampler, one: Look, first: Look, second: Look) -> list[Turn]:
    """Which picture shows a thing."""
    at = sampler.rng.randrange(2)
    sets = [[(first, 1)], [(second, 1)]]
    sets[at].append((one, 1))
    scenes = tuple(sampler.scene(group) for group in sets)
    return [replace(_where_was(sampler, one, ORDERS[at]), scenes=scenes)]


def _where_was(sampler: Sampler, look: Look, order: str) -> Turn:
    question = sampler.say(
        f"Which picture shows the {look.kind}?",
        f"In which of the two pictures is {a(look.kind)}?",
        f"Is {a(look.kind)} in the first or in the second picture?",
    )
    return Turn(
        question, f"The {order} picture shows the {look.kind}.", f"The {order}.", _order(order)
    )


def _common(sampler: Sampler, one: Look, first: Look, second: Look) -> list[Turn]:
    """What is in both pictures."""
    scenes = tuple(sampler.scene([(one, 1), (other, 1)]) for other in (first, second))
    question = sampler.say(
        "What is in both pictures?", "Which thing do the two pictures share?", "What do both show?"
    )
    expected = Expected("all", ((one.kind,),), "kinds")
    short = sentence(f"{a(one.kind)}.")
    return [Turn(question, f"Both pictures show {a(one.kind)}.", short, expected, scenes)]


def _later(sampler: Sampler, one: Look, first: Look, second: Look) -> list[Turn]:
    """A picture is described, another is added, and then both are talked about."""
    scenes = [sampler.scene([(one, 1), (first, 1)]), sampler.scene([(one, 1), (second, 1)])]
    closing: Callable[[], Turn] = sampler.rng.choice(
        (
            lambda: _where_was(sampler, first, "first"),
            lambda: _where_was(sampler, second, "second"),
            lambda: _same(sampler, one),
        )
    )
    described = [
        Turn(
            question,
            caption_of(scene, sampler.rng, detail=False),
            sentence(f"{contents(scene)}."),
            caption_expected(scene),
            (scene,),
        )
        for question, scene in zip(
            (
                sampler.say(*DESCRIBE),
                sampler.say("And in this one?", "What does this second picture show?"),
            ),
            scenes,
            strict=True,
        )
    ]
    return [*described, closing()]


def _same(sampler: Sampler, one: Look) -> Turn:
    question = sampler.say("What do the two pictures have in common?", "What is in both pictures?")
    expected = Expected("all", ((one.kind,),), "kinds")
    return Turn(
        question, f"Both pictures show {a(one.kind)}.", sentence(f"{a(one.kind)}."), expected
    )
