"""Samples that are kept for evaluation: by image, so that none of them shows what was trained.

Contract: a pure function of the records and the seed. Records that share an image, directly or
through a third one, in one data set or in several, are all held out or all trained.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from lite.errors import BadInput
from qlora.data.dataset import DataSet
from qlora.data.shuffle import random_of

# A record: the number of its set, and its index there.
Member = tuple[int, int]
Group = list[Member]


def groups_by_image(sets: Sequence[DataSet]) -> list[Group]:
    """The usable records with images, those of one image together; in the order of their first."""
    parent: dict[int, int] = {}

    def root(image: int) -> int:
        while parent.setdefault(image, image) != image:
            parent[image] = image = parent[parent[image]]  # halves the path
        return image

    images: dict[Member, int] = {}
    for number, one in enumerate(sets):
        for index, image in one.images:
            first = images.setdefault((number, index), image)
            parent[root(image)] = root(first)
    groups: dict[int, Group] = {}
    for member in sorted(images):
        groups.setdefault(root(images[member]), []).append(member)
    return list(groups.values())


def hold_out(groups: Sequence[Group], count: int, seed: int) -> list[Member]:
    """Draw whole groups until about `count` records are held out, shared between sets by size.

    Args:
        groups: all records of a kind.
        count: how many to hold out. The last group may make them more, never more than half of
            all; where groups are large they may be fewer.
        seed: of the draw.

    Returns:
        The records, sorted.

    Raises:
        BadInput: they would leave too little to train on.
    """
    sizes = Counter(number for group in groups for number, _ in group)
    total = sizes.total()
    if count * 2 > total:
        raise BadInput(
            f"data.holdout={count} would leave too little of {total} usable records; lower it."
        )
    held: set[Member] = set()
    taken: Counter[int] = Counter()
    shares = {number: round(count * sizes[number] / total) for number in sorted(sizes)}
    if not any(shares.values()):  # few, of many small sets: the largest gives them
        shares[max(shares, key=sizes.__getitem__)] = count
    for order, (number, share) in enumerate(shares.items()):
        left = [g for g in groups if g[0] not in held and any(n == number for n, _ in g)]
        for group in _drawn(left, share - taken[number], seed, order):
            if taken[number] >= share or len(held) >= sum(shares.values()):
                break
            if len(held) + len(group) <= total // 2:
                held.update(group)
                taken.update(n for n, _ in group)
    if count and not held:
        raise BadInput(
            f"data.holdout={count} cannot be held out: more than half of the {total} records with "
            f"images share one image; set data.holdout=0."
        )
    return sorted(held)


def _drawn(groups: Sequence[Group], count: int, seed: int, order: int) -> Iterator[Group]:
    """Groups in a random order: first so many as would do if each were one record."""
    if count <= 0:
        return
    chance = random_of(seed, "holdout", order)
    first = chance.sample(range(len(groups)), min(count, len(groups)))
    yield from (groups[i] for i in first)
    chosen = set(first)
    rest = [i for i in range(len(groups)) if i not in chosen]
    yield from (groups[i] for i in chance.sample(rest, len(rest)))


def singles(number: int, indices: Iterable[int]) -> list[Group]:
    """A group for each record of a set."""
    return [[(number, index)] for index in indices]
