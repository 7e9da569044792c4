"""What is drawn is what the scene says, seen in the pixels."""

import colorsys
import random
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench.demo import fonts
from bench.demo.backgrounds import BACKGROUNDS
from bench.demo.dialogue import Sampler, quantity
from bench.demo.draw import _glyph, draw, placed
from bench.demo.kinds import KINDS, PAINTS, Look, of_category
from bench.demo.perception import count_turn
from bench.demo.scoring import score
from bench.demo.splits import Rules
from bench.demo.world import OPPOSITE, Scene, Thing, Unfit, compose, outermost, region, relation
from lite.errors import BadInput

SIDE = 128
needs_emoji = pytest.mark.skipif(
    fonts.installed(fonts.EMOJI) is None, reason="Noto Color Emoji is not installed"
)
needs_letters = pytest.mark.skipif(
    any(fonts.installed(file) is None for file in fonts.FONTS.values()),
    reason="DejaVu and Liberation fonts are not all installed",
)


def shapes(seed: int, most: int = 6) -> Scene:
    """A scene of shapes, each group in a colour of its own, on a plain background."""
    while True:
        rng = random.Random(seed)
        colours = rng.sample(sorted(set(PAINTS) - {"white", "black"}), 2)
        looks = [Look("circle", colour=colours[0]), Look("square", colour=colours[1])]
        groups = [(looks[0], rng.randint(1, most - 2)), (looks[1], rng.randint(1, 2))]
        try:
            return replace(compose(rng, groups, list(BACKGROUNDS.values())), background="white")
        except Unfit:
            seed += 1000


def some_scene(seed: int, kinds: int, each: int) -> Scene:
    """A word, and so many of each of so many kinds."""
    sampler = Sampler(random.Random(seed), Rules("train"))
    while True:
        try:
            return sampler.scene([(look, each) for look in sampler.looks(kinds)], 1)
        except Unfit:
            continue


def blobs(picture: Image.Image, colour: str) -> list[tuple[float, float]]:
    """Centres of the connected areas in a paint, as fractions of the side."""
    pixels = np.asarray(picture, int)
    left = {tuple(p) for p in np.argwhere(np.abs(pixels - PAINTS[colour]).max(-1) < 12)}
    centres = []
    while left:
        start = left.pop()
        area, queue = [start], deque([start])
        while queue:
            y, x = queue.popleft()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in left:
                    left.remove(near)
                    area.append(near)
                    queue.append(near)
        if len(area) > 30:
            y, x = np.mean(area, axis=0) / len(pixels)
            centres.append((float(x), float(y)))
    return centres


@pytest.mark.parametrize("seed", range(12))
def test_counts_and_places_of_shapes_are_those_in_the_pixels(seed: int) -> None:
    scene = shapes(seed)
    picture = draw(scene, SIDE)
    for look in {thing.look for thing in scene.things}:
        seen, told = blobs(picture, look.colour), scene.things_of(look.kind)
        assert len(seen) == len(told)
        for thing in told:
            assert min(np.hypot(*np.subtract(at, thing.centre)) for at in seen) < 0.03


@pytest.mark.parametrize("seed", range(12))
def test_a_count_is_right_by_what_is_seen_and_wrong_by_one_more(seed: int) -> None:
    scene = shapes(seed)
    sampler = Sampler(random.Random(seed), Rules("train"))
    look = scene.things[0].look
    turn = count_turn(sampler, scene, look, scene.count(look.kind))
    seen = len(blobs(draw(scene, SIDE), look.colour))
    assert score(turn.answer, turn.expected) == 1
    assert score(f"There are {quantity(look, seen, 'one')}.", turn.expected) == 1
    assert score(f"There are {quantity(look, seen + 1)}.", turn.expected) == 0


@pytest.mark.parametrize("seed", range(12))
def test_relations_and_regions_are_those_in_the_pixels(seed: int) -> None:
    scene = shapes(seed, most=3)
    picture = draw(scene, SIDE)
    first, second = (scene.things_of(kind)[0] for kind in ("circle", "square"))
    (x1, y1), (x2, y2) = (
        min(blobs(picture, t.colour), key=lambda at, t=t: np.hypot(*np.subtract(at, t.centre)))
        for t in (first, second)
    )
    found = relation(first, second)
    assert relation(second, first) == (OPPOSITE[found] if found else None)
    seen = {"left": x1 < x2, "right": x1 > x2, "above": y1 < y2, "below": y1 > y2}
    assert found is None or seen[found]
    where = region(first) or ""
    for word, is_there in (("left", x1 < 0.4), ("right", x1 > 0.6), ("top", y1 < 0.4)):
        assert is_there or word not in where


def at(left: float, top: float) -> Thing:
    return Thing(Look("circle", colour="red"), (left, top, left + 0.2, top + 0.2))


def test_what_is_not_clear_has_no_relation() -> None:
    assert relation(at(0.1, 0.1), at(0.7, 0.7)) is None
    assert relation(at(0.1, 0.1), at(0.7, 0.2)) == "left"
    assert relation(at(0.4, 0.7), at(0.5, 0.1)) == "below"
    assert outermost([at(0.1, 0.1), at(0.15, 0.7)], "left") is None
    assert outermost([at(0.1, 0.1), at(0.6, 0.7)], "left") == at(0.1, 0.1)
    assert region(at(0.28, 0.1)) is None


@pytest.mark.parametrize("seed", range(40))
def test_things_never_overlap_and_stay_inside(seed: int) -> None:
    scene = some_scene(seed, 3, 2)
    for i, thing in enumerate(scene.things):
        left, top, right, bottom = thing.box
        assert 0 <= left < right <= 1
        assert 0 <= top < bottom <= 1
        for other in scene.things[:i]:
            l2, t2, r2, b2 = other.box
            assert right <= l2 or r2 <= left or bottom <= t2 or b2 <= top


@needs_emoji
@needs_letters
@pytest.mark.parametrize("seed", range(20))
def test_each_thing_can_be_seen_and_only_inside_its_box(seed: int) -> None:
    scene = some_scene(seed, 4, 1)
    whole = np.asarray(draw(scene, SIDE), int)
    for thing in scene.things:
        rest = replace(scene, things=tuple(t for t in scene.things if t is not thing))
        changed = np.abs(whole - np.asarray(draw(rest, SIDE), int)).max(-1)
        rows, columns = np.nonzero(changed > 40)
        left, top, right, bottom = (value * SIDE for value in thing.box)
        assert len(rows) > 0.08 * (right - left) * (bottom - top), thing
        assert left - 1 <= columns.min() <= columns.max() <= right + 1
        assert top - 1 <= rows.min() <= rows.max() <= bottom + 1


@needs_emoji
@needs_letters
def test_a_scene_is_drawn_the_same_every_time() -> None:
    scenes = [some_scene(5, 2, 2) for _ in range(2)]
    assert scenes[0] == scenes[1]
    assert draw(scenes[0], 96).tobytes() == draw(scenes[1], 96).tobytes()


def test_there_are_many_kinds_and_none_shares_a_name() -> None:
    things = of_category()
    assert len(things) >= 150
    assert all(kind.facts for kind in things)
    words = [word.lower() for kind in KINDS.values() for word in kind.words]
    assert len(words) == len(set(words))


def hue_family(pixel: tuple[float, float, float]) -> set[str]:
    """Colour words that a person may use for a pixel."""
    hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
    hue *= 360
    if value < 0.4:
        return {"black", "brown", "grey"}
    if saturation < 0.16:
        return {"white", "grey"} if value > 0.6 else {"grey", "black"}
    found = {"grey"} if saturation < 0.4 and 180 < hue < 260 else set()
    ranges = {
        "red": (340, 16),
        "orange": (8, 50),
        "yellow": (32, 68),
        "green": (60, 172),
        "blue": (170, 262),
        "purple": (258, 330),
        "pink": (290, 26),
        "brown": (0, 45),
    }
    for name, (first, last) in ranges.items():
        inside = first <= hue <= last if first < last else hue >= first or hue <= last
        if inside and (name != "brown" or value < 0.85 or saturation < 0.65):
            found.add(name)
    return found | ({"white"} if saturation < 0.25 and value > 0.85 else set())


@needs_emoji
def test_colour_words_are_true_of_the_glyphs() -> None:
    for look in (look for kind in of_category() for look in kind.looks if look.colour):
        pixels = np.asarray(_glyph(look.glyph, 0.0), float).reshape(-1, 4)
        solid = pixels[pixels[:, 3] > 200][::41, :3] / 255
        share = np.mean([look.colour in hue_family(tuple(pixel)) for pixel in solid])
        assert share > 0.35, (look, share)


@needs_letters
def test_a_varied_font_leans_and_is_wider() -> None:
    def inked(variation: str) -> np.ndarray:
        font = fonts.varied("sans bold", variation) if variation else "sans bold"
        word = Thing(Look("word", colour="black"), (0.0, 0.0, 1.0, 1.0), text="HHH", font=font)
        return np.asarray(placed(word, SIDE)[0])[..., 3] > 128

    def lean(ink: np.ndarray) -> float:
        across = [np.flatnonzero(row).mean() for row in (ink[len(ink) // 8], ink[-len(ink) // 8])]
        return float(across[0] - across[1]) / len(ink)

    plain, leaning, wide = inked(""), inked("leaning"), inked("wide")
    assert abs(lean(plain)) < 0.03
    assert lean(leaning) == pytest.approx(0.75 * fonts.VARIATIONS["leaning"][0], abs=0.04)
    proportions = [ink.shape[1] / ink.shape[0] for ink in (plain, wide)]
    assert proportions[1] / proportions[0] == pytest.approx(1.25, abs=0.08)


def test_a_missing_font_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "installed", lambda file: None)
    with pytest.raises(BadInput, match=r"NotoColorEmoji.*apt-get install .*fonts-noto-color-emoji"):
        fonts.find(fonts.EMOJI)
