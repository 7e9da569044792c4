"""Kinds of things: what they look like, what they are called, and what is known of them.

Contract: pure data, the same on every machine. A look's colour word is true of the glyph in Noto
Color Emoji; facts are in text only, no picture shows them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from bench.demo import artefacts, nature

# Colour words with the paint that shapes and words are drawn in.
PAINTS = {
    "red": (218, 34, 40),
    "orange": (247, 133, 20),
    "yellow": (252, 216, 44),
    "green": (42, 158, 60),
    "blue": (34, 92, 222),
    "purple": (128, 48, 184),
    "pink": (252, 126, 186),
    "brown": (122, 72, 38),
    "black": (24, 24, 26),
    "white": (248, 248, 248),
    "grey": (136, 138, 142),
}
SHAPES = ("circle", "square", "triangle", "diamond", "star", "cross")


@dataclass(frozen=True)
class Relation:
    """A fact that the kinds of a category have.

    Attributes:
        name: of the relation.
        question: with `{it}` for the thing as it is referred to.
        statement: with `{A}` for the kind with its article, and `{x}` for the fact.
        short: the answer of a word or two.
    """

    name: str
    question: str
    statement: str
    short: str = "{x}"


def _relation(name: str, question: str, statement: str) -> Relation:
    return Relation(name, question, statement)


MADE = _relation("made", "What is {it} made of?", "{A} is made of {x}.")
EAT = _relation("eaten", "Where could you eat {it}?", "You could eat {a} {x}.")
FOUND = _relation("found", "Where would you find {it}?", "You find {a} {x}.")
USE = _relation("use", "What is {it} used for?", "{A} is used for {x}.")
GROWS = _relation("grows", "Where does {it} grow?", "{A} grows {x}.")
RECIPE = _relation("recipe", "How do you make {it}?", "To make {a}, {x}.")
# Category -> the relations of its columns; of food the last comes from `artefacts.RECIPES`.
RELATIONS: dict[str, tuple[Relation, ...]] = {
    "animal": (
        _relation("sound", "What does {it} say?", "{A} says {x}."),
        _relation("home", "Where does {it} live?", "{A} lives {x}."),
        _relation("diet", "What does {it} eat?", "{A} eats {x}."),
    ),
    "plant": (
        GROWS,
        _relation("trait", "What do people say of {it}?", "People say of {a} that {x}."),
    ),
    "fruit": (GROWS, _relation("taste", "How does {it} taste?", "{A} tastes {x}.")),
    "weather": (
        _relation("when", "When would you see {it}?", "You see {a} {x}."),
        _relation("then", "What should you do about {it}?", "With {a} around, you should {x}."),
    ),
    "food": (MADE, EAT, RECIPE),
    "vehicle": (_relation("moves", "Where does {it} move?", "{A} moves {x}."), USE),
    "sport": (USE, FOUND),
    "building": (
        _relation("happens", "What happens at {it}?", "At {a} {x}."),
        _relation("stands", "Where does {it} stand?", "{A} stands {x}."),
    ),
    "object": (USE, FOUND),
}
CATEGORIES = {name: f"{name}s" for name in RELATIONS} | {
    "weather": "kinds of weather",
    "food": "dishes",
    "fruit": "fruits and vegetables",
    "sport": "things for sports",
}


@dataclass(frozen=True)
class Look:
    """One way in which a kind is drawn: a glyph, or a shape in a colour.

    Attributes:
        kind: name of the kind or shape.
        glyph: the emoji; empty for a shape.
        colour: word for its colour; empty where none dominates.
    """

    kind: str
    glyph: str = ""
    colour: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of things.

    Attributes:
        name, plural: what one and several are called.
        category: key of `RELATIONS`; "shape" for a shape.
        looks: ways in which it is drawn.
        aliases: other names that mean the same.
        facts: what is known, by the name of the relation.
    """

    name: str
    plural: str
    category: str
    looks: tuple[Look, ...]
    aliases: tuple[str, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()

    def fact(self, relation: str) -> str:
        """The fact of a relation, or an empty text."""
        return dict(self.facts).get(relation, "")

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations for which there is a fact."""
        return tuple(r for r in RELATIONS.get(self.category, ()) if self.fact(r.name))

    @property
    def words(self) -> tuple[str, ...]:
        """All that one or several may be called."""
        plurals = tuple(p if p.endswith("s") else plural_of(p) for p in self.aliases)
        return tuple(dict.fromkeys((self.name, self.plural, *self.aliases, *plurals)))


def plural_of(name: str) -> str:
    """The regular plural."""
    if re.search(r"[^aeiou]y$", name):
        return f"{name[:-1]}ies"
    return f"{name}es" if re.search(r"(s|x|z|ch|sh)$", name) else f"{name}s"


def a(name: str) -> str:
    """The name with its indefinite article; "a unicorn" is spoken with a y."""
    return f"{'an' if re.match(r'[aeiou](?!nicorn|fo)', name, re.I) else 'a'} {name}"


def statement(kind: Kind, relation: Relation) -> str:
    """The fact as a sentence."""
    one = a(kind.name)
    return relation.statement.format(a=one, A=one.capitalize(), x=kind.fact(relation.name))


def listed(names: list[str]) -> str:
    """Names with commas and an "and"."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


def _kind(row: str, category: str) -> Kind:
    head, *facts = (cell.strip() for cell in row.split("|"))
    glyphs, name = (
        re.findall(r"([^\x00-\x7f]+)(?::(\w+))?\s+", head),
        re.sub(r"[^\x00-\x7f]+(:\w+)?\s+", "", head),
    )
    singular, _, rest = name.partition("/")
    plural, *aliases = rest.split("=")
    if category == "food":
        facts.append(artefacts.RECIPES.get(singular, "-"))
    if len(facts) != len(RELATIONS[category]):
        raise ValueError(f"{singular}: a fact for each column")
    known = {r.name: fact for r, fact in zip(RELATIONS[category], facts, strict=True)}
    return Kind(
        singular,
        plural or plural_of(singular),
        category,
        tuple(Look(singular, glyph, colour) for glyph, colour in glyphs),
        tuple(aliases),
        tuple((relation, fact) for relation, fact in known.items() if fact != "-"),
    )


def _table(text: str, category: str) -> list[Kind]:
    return [_kind(row, category) for row in text.strip().splitlines()]


def _all() -> dict[str, Kind]:
    tables = {
        "animal": nature.ANIMALS,
        "plant": nature.PLANTS,
        "fruit": nature.FRUIT,
        "weather": nature.WEATHER,
        "food": artefacts.FOOD,
        "vehicle": artefacts.VEHICLES,
        "sport": artefacts.SPORTS,
        "building": artefacts.BUILDINGS,
        "object": artefacts.OBJECTS,
    }
    kinds = [kind for category, text in tables.items() for kind in _table(text, category)]
    for name in SHAPES:
        looks = tuple(Look(name, colour=colour) for colour in PAINTS)
        kinds.append(Kind(name, plural_of(name), "shape", looks))
    return {kind.name: kind for kind in kinds}


KINDS = _all()


@cache
def of_category(*categories: str) -> tuple[Kind, ...]:
    """Kinds of these categories, in the order of the tables; all but shapes for none."""
    return tuple(
        k
        for k in KINDS.values()
        if k.category in categories or (not categories and k.looks[0].glyph)
    )
