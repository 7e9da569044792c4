"""Skills of colours and positions: what stands where, and how it is coloured.

Contract: as `bench.demo.perception`. Left and right are the viewer's.
"""

from __future__ import annotations

from bench.demo.dialogue import (
    RELATION_PHRASES,
    Sampler,
    Turn,
    name_of,
    region_phrase,
    sentence,
    unique_things,
)
from bench.demo.kinds import a
from bench.demo.scoring import Expected
from bench.demo.world import Scene, Thing, Unfit, outermost, region, relation

SIDES = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def where(sampler: Sampler) -> list[Turn]:
    """Colours and positions."""
    ask = sampler.rng.choice(ASKS)
    number = sampler.rng.choice((2, 2, 3) if ask in (_relation, _beside) else (1, 2, 3, 4))
    if ask is _side:
        number = max(number, 2)
    scene = sampler.scene([(look, 1) for look in sampler.looks(number)])
    return [ask(sampler, scene)]


def where_turn(sampler: Sampler, scene: Scene) -> Turn:
    """One of these questions about a scene that is there."""
    if not unique_things(scene):
        raise Unfit("nothing stands alone")
    return sampler.rng.choice(ASKS)(sampler, scene)


def colour_turn(sampler: Sampler, scene: Scene, thing: Thing, name: str) -> Turn:
    """Which colour a thing has, that the question calls `name`."""
    if not thing.colour:
        raise Unfit("no colour dominates")
    question = sampler.say(
        f"What colour is {name}?",
        f"Which colour does {name} have?",
        f"Tell me the colour of {name}.",
    )
    answer = f"{sentence(name)} is {thing.colour}."
    expected = Expected("all", ((thing.colour,),), closed="colours")
    return Turn(question, answer, sentence(f"{thing.colour}."), expected, (scene,))


def _colour(sampler: Sampler, scene: Scene) -> Turn:
    thing = sampler.rng.choice(unique_things(scene))
    return colour_turn(sampler, scene, thing, f"the {thing.kind}")


def _region(sampler: Sampler, scene: Scene) -> Turn:
    return region_turn(sampler, scene, sampler.rng.choice(unique_things(scene)))


def region_turn(sampler: Sampler, scene: Scene, thing: Thing, name: str = "") -> Turn:
    """In which part of the picture a thing is."""
    found, name = region(thing), name or f"the {thing.kind}"
    if found is None:
        raise Unfit("on a border")
    question = sampler.say(
        f"Where in the picture is {name}?",
        f"Where is {name}?",
        f"In which part of the picture do you see {name}?",
    )
    answer = f"{sentence(name)} is {region_phrase(found)} of the picture."
    slots = tuple((word,) for word in found.split())
    return Turn(
        question, answer, sentence(f"{found}."), Expected("all", slots, "regions"), (scene,)
    )


def _side(sampler: Sampler, scene: Scene) -> Turn:
    side = sampler.rng.choice(list(SIDES))
    thing = outermost(scene.things, side)
    if thing is None or thing not in unique_things(scene):
        raise Unfit("nothing is outermost")
    return naming_turn(sampler, scene, thing, "thing", region_phrase(SIDES[side]))


def naming_turn(sampler: Sampler, scene: Scene, thing: Thing, category: str, at: str) -> Turn:
    """What it is that a place and a category describe."""
    which = "What" if category == "thing" else f"Which {category}"
    question = sampler.say(
        f"{which} is {at} of the picture?",
        f"What is the {category} {at}?",
        f"Name the {category} {at} of the picture.",
    )
    answer = sampler.say(
        f"The {category} {at} is {a(name_of(thing.look))}.",
        f"{sentence(at)} of the picture you can see {a(name_of(thing.look))}.",
    )
    expected = Expected("all", ((thing.kind,),), "kinds")
    return Turn(question, answer, sentence(f"{a(name_of(thing.look))}."), expected, (scene,))


def _pair(sampler: Sampler, scene: Scene) -> tuple[Thing, Thing, str]:
    """Two things and where the first is from the second."""
    alone = unique_things(scene)
    if len(alone) < 2:
        raise Unfit("fewer than two")
    first, second = sampler.rng.sample(alone, 2)
    direction = relation(first, second)
    if direction is None:
        raise Unfit("no clear direction")
    return first, second, direction


def _relation(sampler: Sampler, scene: Scene) -> Turn:
    first, second, direction = _pair(sampler, scene)
    one, other = f"the {first.kind}", f"the {second.kind}"
    choice = (
        "above or below" if direction in ("above", "below") else "to the left or to the right of"
    )
    question = sampler.say(
        f"Is {one} {choice} {other}?",
        f"Where is {one}, seen from {other}?",
        f"Where is {one} compared with {other}?",
        f"On which side of {other} is {one}?",
    )
    answer = f"{sentence(one)} is {RELATION_PHRASES[direction]} {other}."
    expected = Expected("relation", ((direction,),), subject=first.kind, other=second.kind)
    return Turn(question, answer, sentence(f"{direction}."), expected, (scene,))


def _beside(sampler: Sampler, scene: Scene) -> Turn:
    """What is to one side of a thing, where exactly one thing is and no other may be meant."""
    first, second, direction = _pair(sampler, scene)
    rest = [t for t in scene.things if t not in (first, second)]
    if any(relation(t, second) in (None, direction) for t in rest):
        raise Unfit("more than one")
    question = sampler.say(
        f"What is {RELATION_PHRASES[direction]} the {second.kind}?",
        f"Which thing do you see {RELATION_PHRASES[direction]} the {second.kind}?",
    )
    answer = (
        f"{sentence(a(name_of(first.look)))} is {RELATION_PHRASES[direction]} the {second.kind}."
    )
    expected = Expected("all", ((first.kind,),), "kinds", (second.kind,))
    return Turn(question, answer, sentence(f"{a(name_of(first.look))}."), expected, (scene,))


ASKS = (_colour, _colour, _region, _side, _relation, _relation, _beside)
