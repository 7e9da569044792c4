"""The ten skills, each an unlimited sequence of examples with exact answers.

Contract: `example(skill, split, number)` is a pure function; the same on every machine.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from bench.demo.dialogue import Dialogue, Sampler, Turn
from bench.demo.kinds import KINDS
from bench.demo.knowledge import knowledge, text
from bench.demo.multi_turn import dialogue, pairs
from bench.demo.perception import absent, caption, count, presence, reading
from bench.demo.positions import where
from bench.demo.splits import Rules, held_facts, novelty_of, seed_of
from bench.demo.world import Unfit

SKILLS: dict[str, Callable[[Sampler], list[Turn]]] = {
    "caption": caption,
    "count": count,
    "place": where,
    "presence": presence,
    "reading": reading,
    "dialogue": dialogue,
    "pairs": pairs,
    "knowledge": knowledge,
    "text": text,
    "absent": absent,
}
# Samples that may be unfit before the rules themselves must be wrong.
TRIES = 1000


def example(skill: str, split: str, number: int, seed: int = 0) -> Dialogue:
    """One example.

    Args:
        skill: of `SKILLS`.
        split: of `bench.demo.splits.SPLITS`.
        number: which one; examples of a split are numbered from 0.
        seed: other examples by the same rules.
    """
    own, novelty = seed_of(split, number), novelty_of(split, number)
    if skill == "text":
        novelty = ""
    for attempt in range(TRIES):
        sampler = Sampler(random.Random(f"{seed}/{skill}/{own}/{attempt}"), Rules(split, novelty))
        try:
            turns = tuple(SKILLS[skill](sampler))
        except Unfit:
            continue
        if skill == "knowledge" and held_facts(KINDS[turns[0].expected.subject]):
            novelty = "facts"
        return Dialogue(f"{skill}-{split}-{number}", skill, novelty, turns)
    raise RuntimeError(f"{skill} {split} {number}: no example after {TRIES} tries")
