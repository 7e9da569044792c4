"""Skills that need knowledge: of the thing in a picture, and of words alone.

Contract: as `bench.demo.perception`. An answer about a picture names the thing and continues with
the sentence of the language-only data, so that knowledge learned from text transfers.
"""

from __future__ import annotations

from dataclasses import replace

from bench.demo.answer_terms import NUMBERS
from bench.demo.dialogue import CATEGORY_NOUNS, Sampler, Turn, mentioned_kinds, sentence
from bench.demo.kinds import CATEGORIES, KINDS, Kind, Relation, a, listed, of_category, statement
from bench.demo.scoring import Expected, content_slots
from bench.demo.sign_words import WORDS
from bench.demo.world import Unfit

_PAIRS = """
hot-cold big-small fast-slow old-new wet-dry light-dark loud-quiet happy-sad full-empty high-low
open-closed early-late hard-soft long-short rich-poor strong-weak sweet-sour thick-thin near-far
clean-dirty day-night up-down yes-no left-right above-below in-out
"""
OPPOSITES = dict(pair.split("-") for pair in _PAIRS.split())
SMALL_TALK = (
    ("Hello!", "Hello! Show me a picture and ask me what is in it.", "hello"),
    ("Hi there.", "Hello! Show me a picture and ask me what is in it.", "hello"),
    ("Good morning!", "Good morning! What would you like to talk about?", "morning"),
    ("Thank you.", "You are welcome!", "welcome"),
    ("Thanks a lot!", "You are welcome!", "welcome"),
    ("Who are you?", "I am a small demo model that talks about drawn scenes.", "demo"),
    ("What can you do?", "I can describe drawn scenes, count things and read words.", "describe"),
    ("Goodbye!", "Goodbye! Come back with another picture.", "goodbye"),
)


def fact_turn(sampler: Sampler, kind: Kind, relation: Relation, it: str, prefix: str = "") -> Turn:
    """A question about a fact, where the thing is called `it`."""
    fact = kind.fact(relation.name)
    answer = statement(kind, relation)
    question = relation.question.format(it=it)
    question = sampler.say(
        question,
        question,
        f"Tell me: {question[0].lower()}{question[1:]}",
        f"{question} Please explain.",
    )
    allowed = mentioned_kinds(answer, fact)
    expected = Expected("part", content_slots(fact), allowed=allowed, subject=kind.name)
    return Turn(question, prefix + answer, sentence(f"{fact}."), expected)


def knowledge(sampler: Sampler) -> list[Turn]:
    """A fact about the thing in the picture, whose name the question does not say."""
    rng = sampler.rng
    kind, *others = sampler.kinds(1 + rng.choice((0, 0, 1, 2)))
    if not kind.facts or not sampler.rules.asks_facts(kind):
        raise Unfit("no facts, or held back")
    category = CATEGORY_NOUNS.get(kind.category, "thing")
    if (category == "thing" and others) or any(o.category == kind.category for o in others):
        raise Unfit("it is not clear what is meant")
    kinds = [kind, *others]
    scene = sampler.scene([(sampler.rules.look(rng, one), 1) for one in kinds])
    relation = rng.choice(kind.relations)
    it = sampler.say(f"the {category} in the picture", f"the {category} you see here")
    prefix = sampler.say("", f"This is {a(kind.name)}. ", f"The {category} is {a(kind.name)}. ")
    return [replace(fact_turn(sampler, kind, relation, it, prefix), scenes=(scene,))]


def text(sampler: Sampler) -> list[Turn]:
    """An instruction without a picture."""
    kinds = (_fact, _fact, _fact, _member, _is_a, _odd, _plural, _sum, _opposite, _spell, _repeat)
    return [sampler.rng.choice((*kinds, _sound, _colour, _small_talk))(sampler)]


def _known(sampler: Sampler) -> Kind:
    return sampler.rng.choice([kind for kind in of_category() if kind.facts])


def _fact(sampler: Sampler) -> Turn:
    kind = _known(sampler)
    return fact_turn(sampler, kind, sampler.rng.choice(kind.relations), a(kind.name))


def _member(sampler: Sampler) -> Turn:
    """Name three animals."""
    category = sampler.rng.choice(list(CATEGORIES))
    number = sampler.rng.choice((2, 3))
    members = of_category(category)
    named = [a(kind.name) for kind in sampler.rng.sample(members, number)]
    question = sampler.say(
        f"Name {NUMBERS[number]} {CATEGORIES[category]}.",
        f"Give me {NUMBERS[number]} examples of {CATEGORIES[category]}.",
    )
    slots = tuple((kind.name,) for kind in members)
    expected = Expected("enough", slots, "kinds", number=number)
    answer = f"{sentence(NUMBERS[number])} {CATEGORIES[category]} are {listed(named)}."
    return Turn(question, answer, sentence(f"{listed(named)}."), expected)


def _class(category: str) -> str:
    """What one of a category is, as a noun."""
    names = {
        "food": "a dish",
        "fruit": "a fruit or a vegetable",
        "sport": "a thing for sports",
        "weather": "a kind of weather",
        "object": "an object",
        "animal": "an animal",
    }
    return names.get(category, f"a {category}")


def _is_a(sampler: Sampler) -> Turn:
    """Is a cow an animal?"""
    kind, right = _known(sampler), sampler.rng.random() < 0.5
    own = _class(kind.category)
    others = [c for c in CATEGORIES if c not in (kind.category, "object")]
    asked = own if right else _class(sampler.rng.choice(others))
    question = f"Is {a(kind.name)} {asked}?"
    answer = f"Yes, {a(kind.name)} is {own}." if right else f"No, {a(kind.name)} is {own}."
    return Turn(question, answer, "Yes." if right else "No.", Expected("yes", number=int(right)))


def _odd(sampler: Sampler) -> Turn:
    """Which of these is an animal: a pizza, a cow or a car?"""
    rng = sampler.rng
    category, *others = rng.sample([c for c in CATEGORIES if c != "object"], 3)
    kinds = [rng.choice(of_category(c)) for c in (category, *others)]
    names = [a(kind.name) for kind in kinds]
    rng.shuffle(names)
    question = f"Which of these is {_class(category)}: {names[0]}, {names[1]} or {names[2]}?"
    answer = f"Of these, {a(kinds[0].name)} is {_class(category)}."
    expected = Expected("all", ((kinds[0].name,),), "kinds")
    return Turn(question, answer, sentence(f"{a(kinds[0].name)}."), expected)


def _plural(sampler: Sampler) -> Turn:
    kind = sampler.rng.choice([*KINDS.values()])
    question = sampler.say(
        f"What is the plural of {kind.name}?", f"Give me the plural of the word {kind.name}."
    )
    answer = f"The plural of {kind.name} is {kind.plural}."
    expected = Expected("final", ((kind.plural,),))
    return Turn(question, answer, sentence(f"{kind.plural}."), expected)


def _sum(sampler: Sampler) -> Turn:
    first = sampler.rng.randint(0, 8)
    second = sampler.rng.randint(0, 10 - first)
    one, other, total = NUMBERS[first], NUMBERS[second], NUMBERS[first + second]
    question = sampler.say(f"What is {one} plus {other}?", f"Add {one} and {other}.")
    expected = Expected("final", ((total, str(first + second)),))
    return Turn(
        question, f"{sentence(one)} plus {other} is {total}.", sentence(f"{total}."), expected
    )


def _opposite(sampler: Sampler) -> Turn:
    first, second = sampler.rng.choice(list(OPPOSITES.items()))
    if sampler.rng.random() < 0.5:
        first, second = second, first
    question = sampler.say(f"What is the opposite of {first}?", f"Tell me the opposite of {first}.")
    answer = f"The opposite of {first} is {second}."
    return Turn(question, answer, sentence(f"{second}."), Expected("final", ((second,),)))


def _spell(sampler: Sampler) -> Turn:
    word = sampler.rng.choice(WORDS)
    spelt = "-".join(word.upper())
    question = sampler.say(f"Spell the word {word}.", f"How do you spell {word}?")
    forms = (spelt, " ".join(word), ", ".join(word))
    expected = Expected("all", (forms,))
    return Turn(question, f"The word {word} is spelt {spelt}.", spelt, expected)


def _repeat(sampler: Sampler) -> Turn:
    word, number = sampler.rng.choice(WORDS), sampler.rng.choice((2, 3))
    times = {2: "twice", 3: "three times"}[number]
    answer = " ".join([word] * number)
    question = sampler.say(f"Say {word} {times}.", f"Repeat the word {word} {times}.")
    return Turn(
        question, sentence(answer), sentence(answer), Expected("times", ((word,),), number=number)
    )


def _sound(sampler: Sampler) -> Turn:
    """Which animal says moo? For sounds of one animal only."""
    sounds: dict[str, list[str]] = {}
    for kind in of_category("animal"):
        sounds.setdefault(kind.fact("sound"), []).append(kind.name)
    sound = sampler.rng.choice([s for s, kinds in sounds.items() if s and len(kinds) == 1])
    name = sounds[sound][0]
    answer = f"{sentence(a(name))} says {sound}."
    expected = Expected("all", ((name,),), "kinds", mentioned_kinds(answer))
    return Turn(f"Which animal says {sound}?", answer, sentence(f"{a(name)}."), expected)


def _colour(sampler: Sampler) -> Turn:
    """Which colour a kind usually has."""
    kinds = [kind for kind in of_category() if len(kind.looks) == 1 and kind.looks[0].colour]
    kind = sampler.rng.choice(kinds)
    colour = kind.looks[0].colour
    question = sampler.say(
        f"What colour is {a(kind.name)} usually?", f"What is the usual colour of {a(kind.name)}?"
    )
    answer = f"{sentence(a(kind.name))} is usually {colour}."
    expected = Expected("all", ((colour,),), "colours")
    return Turn(question, answer, sentence(f"{colour}."), expected)


def _small_talk(sampler: Sampler) -> Turn:
    question, answer, key = sampler.rng.choice(SMALL_TALK)
    return Turn(question, answer, answer, Expected("all", ((key,),)))
