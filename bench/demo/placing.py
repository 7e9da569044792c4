"""Skills of colours and positions: what stands where, and how it is coloured.

Contract: as `bench.demo.looking`. Left and right are the viewer's.
"""

from __future__ import annotations

from bench.demo.kinds import a
from bench.demo.scoring import Expected
from bench.demo.talk import SEEN_FROM, Stage, Turn, called, place, sentence, single
from bench.demo.world import Scene, Thing, Unfit, outermost, region, relation

SIDES = {"left": "left", "right": "right", "above": "top", "below": "bottom"}


def where(stage: Stage) -> list[Turn]:
    """Colours and positions."""
    ask = stage.chance.choice(ASKS)
    number = stage.chance.choice((2, 2, 3) if ask in (_relation, _beside) else (1, 2, 3, 4))
    if ask is _side:
        number = max(number, 2)
    scene = stage.scene([(look, 1) for look in stage.looks(number)])
    return [ask(stage, scene)]


def where_turn(stage: Stage, scene: Scene) -> Turn:
    """One of these questions about a scene that is there."""
    if not single(scene):
        raise Unfit("nothing stands alone")
    return stage.chance.choice(ASKS)(stage, scene)


def colour_turn(stage: Stage, scene: Scene, thing: Thing, name: str) -> Turn:
    """Which colour a thing has, that the question calls `name`."""
    if not thing.colour:
        raise Unfit("no colour dominates")
    question = stage.say(
        f"What colour is {name}?",
        f"Which colour does {name} have?",
        f"Tell me the colour of {name}.",
    )
    answer = f"{sentence(name)} is {thing.colour}."
    expected = Expected("all", ((thing.colour,),), closed="colours")
    return Turn(question, answer, sentence(f"{thing.colour}."), expected, (scene,))


def _colour(stage: Stage, scene: Scene) -> Turn:
    thing = stage.chance.choice(single(scene))
    return colour_turn(stage, scene, thing, f"the {thing.kind}")


def _region(stage: Stage, scene: Scene) -> Turn:
    return region_turn(stage, scene, stage.chance.choice(single(scene)))


def region_turn(stage: Stage, scene: Scene, thing: Thing, name: str = "") -> Turn:
    """In which part of the picture a thing is."""
    found, name = region(thing), name or f"the {thing.kind}"
    if found is None:
        raise Unfit("on a border")
    question = stage.say(
        f"Where in the picture is {name}?",
        f"Where is {name}?",
        f"In which part of the picture do you see {name}?",
    )
    answer = f"{sentence(name)} is {place(found)} of the picture."
    slots = tuple((word,) for word in found.split())
    return Turn(
        question, answer, sentence(f"{found}."), Expected("all", slots, "regions"), (scene,)
    )


def _side(stage: Stage, scene: Scene) -> Turn:
    side = stage.chance.choice(list(SIDES))
    thing = outermost(scene.things, side)
    if thing is None or thing not in single(scene):
        raise Unfit("nothing is outermost")
    return naming_turn(stage, scene, thing, "thing", place(SIDES[side]))


def naming_turn(stage: Stage, scene: Scene, thing: Thing, category: str, at: str) -> Turn:
    """What it is that a place and a category describe."""
    which = "What" if category == "thing" else f"Which {category}"
    question = stage.say(
        f"{which} is {at} of the picture?",
        f"What is the {category} {at}?",
        f"Name the {category} {at} of the picture.",
    )
    answer = stage.say(
        f"The {category} {at} is {a(called(thing.look))}.",
        f"{sentence(at)} of the picture you can see {a(called(thing.look))}.",
    )
    expected = Expected("all", ((thing.kind,),), "kinds")
    return Turn(question, answer, sentence(f"{a(called(thing.look))}."), expected, (scene,))


def _pair(stage: Stage, scene: Scene) -> tuple[Thing, Thing, str]:
    """Two things and where the first is from the second."""
    alone = single(scene)
    if len(alone) < 2:
        raise Unfit("fewer than two")
    first, second = stage.chance.sample(alone, 2)
    direction = relation(first, second)
    if direction is None:
        raise Unfit("no clear direction")
    return first, second, direction


def _relation(stage: Stage, scene: Scene) -> Turn:
    first, second, direction = _pair(stage, scene)
    one, other = f"the {first.kind}", f"the {second.kind}"
    choice = (
        "above or below" if direction in ("above", "below") else "to the left or to the right of"
    )
    question = stage.say(
        f"Is {one} {choice} {other}?",
        f"Where is {one}, seen from {other}?",
        f"Where is {one} compared with {other}?",
        f"On which side of {other} is {one}?",
    )
    answer = f"{sentence(one)} is {SEEN_FROM[direction]} {other}."
    expected = Expected("relation", ((direction,),), subject=first.kind, other=second.kind)
    return Turn(question, answer, sentence(f"{direction}."), expected, (scene,))


def _beside(stage: Stage, scene: Scene) -> Turn:
    """What is to one side of a thing, where exactly one thing is and no other may be meant."""
    first, second, direction = _pair(stage, scene)
    rest = [t for t in scene.things if t not in (first, second)]
    if any(relation(t, second) in (None, direction) for t in rest):
        raise Unfit("more than one")
    question = stage.say(
        f"What is {SEEN_FROM[direction]} the {second.kind}?",
        f"Which thing do you see {SEEN_FROM[direction]} the {second.kind}?",
    )
    answer = f"{sentence(a(called(first.look)))} is {SEEN_FROM[direction]} the {second.kind}."
    expected = Expected("all", ((first.kind,),), "kinds", (second.kind,))
    return Turn(question, answer, sentence(f"{a(called(first.look))}."), expected, (scene,))


ASKS = (_colour, _colour, _region, _side, _relation, _relation, _beside)
