"""Skills of one question about one picture: caption, count, presence, reading, absence.

Contract: a function of a skill draws scenes and asks; one whose name ends in `_turn` asks about a
scene that is there. Both raise `Unfit` where there is nothing clear to ask.
"""

from __future__ import annotations

import random

from bench.demo.grounds import ground_of
from bench.demo.kinds import KINDS, Look, a
from bench.demo.reading import NUMBERS, said
from bench.demo.scoring import Expected
from bench.demo.talk import (
    Stage,
    Turn,
    called,
    contents,
    groups_of,
    is_are,
    place,
    sentence,
    single,
    some,
)
from bench.demo.world import Scene, Thing, Unfit, region

DESCRIBE = (
    "What is in the picture?",
    "Describe the picture in detail.",
    "What can you see?",
    "What does this picture show?",
    "Please describe this scene.",
    "Tell me what is in this image.",
)
MOST = 6


def caption_of(scene: Scene, chance: random.Random, detail: bool = True) -> str:
    """What is in a scene, on which background, and where what stands alone is."""
    opening = chance.choice(("The picture shows", "I can see", "There is", "This is a scene with"))
    if opening == "There is" and sum(n for _, n in groups_of(scene)[:1]) > 1:
        opening = "There are"
    text = f"{opening} {contents(scene)}"
    if detail or chance.random() < 0.5:
        text += f" on {ground_of(scene.ground).said}"
    text += "."
    if detail and len(scene.things) > 1:
        placed = [(thing, region(thing)) for thing in single(scene)]
        for thing, where in placed[:3]:
            if where:
                text += f" The {called(thing.look)} is {place(where)}."
    return text


def caption_expected(scene: Scene) -> Expected:
    """Slots for each kind, for each number above one, for colours that vary, and for words."""
    slots = [(kind,) for kind in scene.kinds]
    for look, number in groups_of(scene):
        if number > 1:
            slots.append((f"{number} {look.kind}",))
        if len(KINDS[look.kind].looks) > 1:
            slots.append((f"{look.colour}:{look.kind}",))
    slots += [(f'"{word.text}"',) for word in scene.words]
    return Expected("caption", tuple(slots), allowed=tuple(scene.kinds))


def crowd(stage: Stage, kinds: tuple[int, ...] = (1, 2, 2, 3, 3, 4), word: float = 0.2) -> Scene:
    """Some things, of which some are there more than once."""
    chance = stage.chance
    looks = stage.looks(chance.choice(kinds))
    spare = 7 - len(looks)
    groups = []
    for look in looks:
        number = min(chance.choice((1, 1, 1, 2, 3)), 1 + spare)
        spare -= number - 1
        groups.append((look, number))
    return stage.scene(groups, int(chance.random() < word))


def caption(stage: Stage) -> list[Turn]:
    return [caption_turn(stage, crowd(stage))]


def caption_turn(stage: Stage, scene: Scene) -> Turn:
    """All that is there."""
    answer = caption_of(scene, stage.chance)
    short = sentence(f"{contents(scene)}.")
    return Turn(stage.say(*DESCRIBE), answer, short, caption_expected(scene), (scene,))


def count(stage: Stage) -> list[Turn]:
    """Numbers from none to six, each equally often; sometimes only those of one colour."""
    chance = stage.chance
    look, *others = stage.looks(1 + chance.choice((0, 1, 1, 2)))
    number = chance.randint(0, MOST)
    if not number and not others:
        others = stage.looks(1, but=(look.kind,))
    if len(KINDS[look.kind].looks) > 1 and chance.random() < 0.6:
        others.append(stage.rules.look(chance, KINDS[look.kind]))
    if look in others:
        raise Unfit("the same colour twice")
    spare = 8 - number - len(others)
    groups = [(look, number)] if number else []
    for other in others:
        more = min(chance.choice((0, 0, 1, 2)), spare)
        spare -= more
        groups.append((other, 1 + more))
    return [count_turn(stage, stage.scene(groups), look, number)]


def count_turn(stage: Stage, scene: Scene, look: Look, number: int) -> Turn:
    """How many of a look there are."""
    plural = some(look, 2).partition(" ")[2]
    question = stage.say(
        f"How many {plural} are there in the picture?",
        f"How many {plural} can you see?",
        f"Count the {plural}.",
        f"What is the number of {plural} in this scene?",
    )
    many = some(look, number, "one")
    answer = stage.say(f"There {is_are(number)} {many} in the picture.", f"I can see {many}.")
    colour = look.colour if len(KINDS[look.kind].looks) > 1 else ""
    expected = Expected("count", subject=look.kind, colour=colour, number=number)
    short = sentence(f"{NUMBERS[number]}." if number else "None.")
    return Turn(question, answer, short, expected, (scene,))


def presence(stage: Stage) -> list[Turn]:
    """Yes or no, equally often; what is not there is often like what is (POPE: adversarial)."""
    scene = crowd(stage, word=0.1)
    there = stage.chance.random() < 0.5
    return [presence_turn(stage, scene, there)]


def presence_turn(stage: Stage, scene: Scene, there: bool) -> Turn:
    """Whether a kind, or a shape in a colour, is there."""
    there_are = [called(look) for look, _ in groups_of(scene)]
    name = stage.chance.choice(there_are) if there else _missing(stage, scene)
    one = a(name)
    question = stage.say(
        f"Is there {one} in the picture?",
        f"Can you see {one}?",
        f"Does the picture show {one}?",
        f"Do you see {one} in this image?",
    )
    yes, no = f"Yes, there is {one} in the picture.", f"No, there is no {name} in the picture."
    expected = Expected("yes", subject=said(name, "kinds")[0], number=int(there))
    return Turn(question, yes if there else no, "Yes." if there else "No.", expected, (scene,))


def _missing(stage: Stage, scene: Scene) -> str:
    """A name for what is not there: a kind, or one that is there in another colour."""
    looks = [look for look, _ in groups_of(scene)]
    varied = [look for look in looks if len(KINDS[look.kind].looks) > 1]
    if varied and stage.chance.random() < 0.4:
        look = stage.rules.look(stage.chance, KINDS[stage.chance.choice(varied).kind])
        if look in looks:
            raise Unfit("it is there")
        return called(look)
    return stage.near(scene.kinds).name


def reading(stage: Stage) -> list[Turn]:
    """The word that is written, beside other things."""
    groups = [(look, 1) for look in stage.looks(stage.chance.choice((0, 1, 1, 2, 3)))]
    scene = stage.scene(groups, 1)
    return [reading_turn(stage, scene, scene.words[0])]


def reading_turn(stage: Stage, scene: Scene, word: Thing, name: str = "the sign") -> Turn:
    question = stage.say(
        f"What does {name} say?",
        "Which word is written in the picture?",
        "Read the word in the picture.",
        "What is written there?",
        "Can you read the text?",
    )
    if name != "the sign":
        question = f"What does {name} say?"
    answer = stage.say(f'The word in the picture is "{word.text}".', f'It says "{word.text}".')
    return Turn(question, answer, f"{word.text}.", Expected("all", ((word.text,),)), (scene,))


def absent(stage: Stage) -> list[Turn]:
    """A question about what is not there."""
    wordless = stage.rules.novelty != "font" and stage.chance.random() < 0.12
    scene = crowd(stage, word=0.0 if wordless else 0.1)
    return [absent_turn(stage, scene, "word" if wordless else stage.near(scene.kinds).name)]


def absent_turn(stage: Stage, scene: Scene, name: str) -> Turn:
    question = stage.say(
        f"What colour is the {name}?",
        f"Where in the picture is the {name}?",
        f"What is to the left of the {name}?",
        f"Describe the {name} in the picture.",
        f"What is the {name} doing?",
    )
    if name == "word":
        question = stage.say("What does the sign say?", "Read the word in the picture.")
    answer = f"There is no {name} in the picture."
    if stage.chance.random() < 0.6:
        answer += f" I can see {contents(scene)}."
    allowed = {*scene.kinds, *(look.colour for look, _ in groups_of(scene))} - {""}
    expected = Expected("absent", closed="colours", allowed=tuple(sorted(allowed)), subject=name)
    return Turn(question, answer, f"There is no {name}.", expected, (scene,))
