"""Skills of one question about one picture: caption, count, presence, reading, absence.

Contract: a function of a skill samples a scene and a question; one whose name ends in `_turn` makes
a question about a given scene. Both raise `Unfit` where no question has a clear answer.
"""

from __future__ import annotations

import random

from bench.demo.answer_terms import NUMBERS, terms_in
from bench.demo.backgrounds import background_of
from bench.demo.dialogue import (
    Sampler,
    Turn,
    contents,
    groups_of,
    is_are,
    name_of,
    quantity,
    region_phrase,
    sentence,
    unique_things,
)
from bench.demo.kinds import KINDS, Look, a
from bench.demo.scoring import Expected
from bench.demo.world import Scene, Thing, Unfit, region

DESCRIBE = (
    "What is in the picture?",
    "Describe the picture in detail.",
    "What can you see?",
    "What does this picture show?",
    "Please describe this scene.",
    "Tell me what is in this image.",
)
MOST_COUNTED = 6


def caption_of(scene: Scene, rng: random.Random, detail: bool = True) -> str:
    """What is in a scene, on which background, and where what stands alone is."""
    opening = rng.choice(("The picture shows", "I can see", "There is", "This is a scene with"))
    if opening == "There is" and sum(n for _, n in groups_of(scene)[:1]) > 1:
        opening = "There are"
    text = f"{opening} {contents(scene)}"
    if detail or rng.random() < 0.5:
        text += f" on {background_of(scene.background).phrase}"
    text += "."
    if detail and len(scene.things) > 1:
        placed = [(thing, region(thing)) for thing in unique_things(scene)]
        for thing, where in placed[:3]:
            if where:
                text += f" The {name_of(thing.look)} is {region_phrase(where)}."
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


def crowded_scene(
    sampler: Sampler, kinds: tuple[int, ...] = (1, 2, 2, 3, 3, 4), word: float = 0.2
) -> Scene:
    """Some things, of which some are there more than once."""
    rng = sampler.rng
    looks = sampler.looks(rng.choice(kinds))
    spare = 7 - len(looks)
    groups = []
    for look in looks:
        number = min(rng.choice((1, 1, 1, 2, 3)), 1 + spare)
        spare -= number - 1
        groups.append((look, number))
    return sampler.scene(groups, int(rng.random() < word))


def caption(sampler: Sampler) -> list[Turn]:
    return [caption_turn(sampler, crowded_scene(sampler))]


def caption_turn(sampler: Sampler, scene: Scene) -> Turn:
    """All that is there."""
    answer = caption_of(scene, sampler.rng)
    short = sentence(f"{contents(scene)}.")
    return Turn(sampler.say(*DESCRIBE), answer, short, caption_expected(scene), (scene,))


def count(sampler: Sampler) -> list[Turn]:
    """Numbers from none to six, each equally often; sometimes only those of one colour."""
    rng = sampler.rng
    look, *others = sampler.looks(1 + rng.choice((0, 1, 1, 2)))
    number = rng.randint(0, MOST_COUNTED)
    if not number and not others:
        others = sampler.looks(1, excluding=(look.kind,))
    if len(KINDS[look.kind].looks) > 1 and rng.random() < 0.6:
        others.append(sampler.rules.look(rng, KINDS[look.kind]))
    if look in others:
        raise Unfit("the same colour twice")
    spare = 8 - number - len(others)
    groups = [(look, number)] if number else []
    for other in others:
        more = min(rng.choice((0, 0, 1, 2)), spare)
        spare -= more
        groups.append((other, 1 + more))
    return [count_turn(sampler, sampler.scene(groups), look, number)]


def count_turn(sampler: Sampler, scene: Scene, look: Look, number: int) -> Turn:
    """How many of a look there are."""
    plural = quantity(look, 2).partition(" ")[2]
    question = sampler.say(
        f"How many {plural} are there in the picture?",
        f"How many {plural} can you see?",
        f"Count the {plural}.",
        f"What is the number of {plural} in this scene?",
    )
    many = quantity(look, number, "one")
    answer = sampler.say(f"There {is_are(number)} {many} in the picture.", f"I can see {many}.")
    colour = look.colour if len(KINDS[look.kind].looks) > 1 else ""
    expected = Expected("count", subject=look.kind, colour=colour, number=number)
    short = sentence(f"{NUMBERS[number]}." if number else "None.")
    return Turn(question, answer, short, expected, (scene,))


def presence(sampler: Sampler) -> list[Turn]:
    """Yes or no, equally often; what is not there is often like what is (POPE: adversarial)."""
    scene = crowded_scene(sampler, word=0.1)
    there = sampler.rng.random() < 0.5
    return [presence_turn(sampler, scene, there)]


def presence_turn(sampler: Sampler, scene: Scene, there: bool) -> Turn:
    """Whether a kind, or a shape in a colour, is there."""
    there_are = [name_of(look) for look, _ in groups_of(scene)]
    name = sampler.rng.choice(there_are) if there else _missing(sampler, scene)
    one = a(name)
    question = sampler.say(
        f"Is there {one} in the picture?",
        f"Can you see {one}?",
        f"Does the picture show {one}?",
        f"Do you see {one} in this image?",
    )
    yes, no = f"Yes, there is {one} in the picture.", f"No, there is no {name} in the picture."
    expected = Expected("yes", subject=terms_in(name, "kinds")[0], number=int(there))
    return Turn(question, yes if there else no, "Yes." if there else "No.", expected, (scene,))


def _missing(sampler: Sampler, scene: Scene) -> str:
    """A name for what is not there: a kind, or one that is there in another colour."""
    looks = [look for look, _ in groups_of(scene)]
    varied = [look for look in looks if len(KINDS[look.kind].looks) > 1]
    if varied and sampler.rng.random() < 0.4:
        look = sampler.rules.look(sampler.rng, KINDS[sampler.rng.choice(varied).kind])
        if look in looks:
            raise Unfit("it is there")
        return name_of(look)
    return sampler.near(scene.kinds).name


def reading(sampler: Sampler) -> list[Turn]:
    """The word that is written, beside other things."""
    groups = [(look, 1) for look in sampler.looks(sampler.rng.choice((0, 1, 1, 2, 3)))]
    scene = sampler.scene(groups, 1)
    return [reading_turn(sampler, scene, scene.words[0])]


def reading_turn(sampler: Sampler, scene: Scene, word: Thing, name: str = "the sign") -> Turn:
    question = sampler.say(
        f"What does {name} say?",
        "Which word is written in the picture?",
        "Read the word in the picture.",
        "What is written there?",
        "Can you read the text?",
    )
    if name != "the sign":
        question = f"What does {name} say?"
    answer = sampler.say(f'The word in the picture is "{word.text}".', f'It says "{word.text}".')
    return Turn(question, answer, f"{word.text}.", Expected("all", ((word.text,),)), (scene,))


def absent(sampler: Sampler) -> list[Turn]:
    """A question about what is not there."""
    wordless = sampler.rules.novelty != "font" and sampler.rng.random() < 0.12
    scene = crowded_scene(sampler, word=0.0 if wordless else 0.1)
    return [absent_turn(sampler, scene, "word" if wordless else sampler.near(scene.kinds).name)]


def absent_turn(sampler: Sampler, scene: Scene, name: str) -> Turn:
    question = sampler.say(
        f"What colour is the {name}?",
        f"Where in the picture is the {name}?",
        f"What is to the left of the {name}?",
        f"Describe the {name} in the picture.",
        f"What is the {name} doing?",
    )
    if name == "word":
        question = sampler.say("What does the sign say?", "Read the word in the picture.")
    answer = f"There is no {name} in the picture."
    if sampler.rng.random() < 0.6:
        answer += f" I can see {contents(scene)}."
    allowed = {*scene.kinds, *(look.colour for look, _ in groups_of(scene))} - {""}
    expected = Expected("absent", closed="colours", allowed=tuple(sorted(allowed)), subject=name)
    return Turn(question, answer, f"There is no {name}.", expected, (scene,))
