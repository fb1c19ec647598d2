"""Captions against the regions they are about."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.warehouse.parameters import CAPTIONS, AnswerStyle
from smolrgpt_jax.warehouse.picture.view import floor_distance, is_inside
from smolrgpt_jax.warehouse.words.captioning import Captioner, scene_captions

STYLE = AnswerStyle(decimals=1, settled=True, worked=True)
NAMES = {
    "pallet": ("pallet",),
    "buffer": ("buffer region",),
    "shelf": ("shelf",),
    "transporter": ("empty transporter", "loaded transporter"),
}


@pytest.fixture(scope="module")
def captions(samples):
    """Captions of each kind: all of it only that kind was asked for."""
    rng, made = np.random.default_rng(1), {}
    for kind in CAPTIONS:
        made[kind] = [c for s in samples[:60] for c in Captioner(s.regions, 6, rng, STYLE).captions({kind: 2})]
    return made


def percent(region) -> tuple[int, int]:
    return min(int(100 * region.u), 99), min(int(100 * region.v), 99)


def test_every_kind_is_made_and_its_masks_fit(captions):
    for kind, made in captions.items():
        assert len(made) > 24, kind
        most = 14 if kind.startswith("worked") else 8  # questions take all that is there
        for caption in made:
            assert 1 <= caption.prompt.count(MASK) == len(caption.regions) <= most
            assert all(int(n) < len(caption.regions) for n in re.findall(r"\[Region (\d+)\]", caption.text))


def test_names_and_places_of_one_region(captions):
    for caption in captions["single"]:
        (region,) = caption.regions
        assert any(name in caption.text.lower() for name in NAMES[region.kind])
        tenths = tuple(map(int, re.search(r"\((\d), (\d)\)", caption.text).groups()))
        assert tenths == tuple(value // 10 for value in percent(region))


def test_fine_places(captions):
    for caption in captions["fine"]:
        assert caption.text == f"{percent(caption.regions[0])}."


def test_comparisons(captions):
    for caption in captions["compare"]:
        a, b = caption.regions
        assert (" left " in caption.text) == (a.u < b.u) != (" right " in caption.text)
        assert ("nearer" in caption.text) == (a.ahead < b.ahead) != ("farther" in caption.text)


def test_sides_in_the_words_of_the_questions(captions):
    asked = []
    for caption in captions["side"]:
        a, b = caption.regions
        assert a.kind == b.kind and caption.prompt.count(f"{NAMES[a.kind][0]} {MASK}") == 2
        assert caption.text == ("Left." if a.u < b.u else "Right.")
        if "left or right" not in caption.prompt:
            asked.append(("left" in caption.prompt) == (caption.text == "Left."))
    assert 0.35 < sum(asked) / len(asked) < 0.65  # the side that is asked about tells nothing


def test_whole_metres_on_the_floor(captions):
    for caption in captions["floor"]:
        (region,) = caption.regions
        ahead, aside, side = re.fullmatch(r"(\d+) meters ahead, (\d+) meters (left|right)\.", caption.text).groups()
        assert int(ahead) == pytest.approx(region.ahead, abs=0.51)
        assert int(aside) == pytest.approx(abs(region.right), abs=0.51)
        assert (side == "left") == (region.right < 0)


def test_whole_metres_between_two(captions):
    worded = [c for c in captions["apart"] if c.prompt.count("pallet") == 2]
    assert 0.3 < len(worded) / len(captions["apart"]) < 0.7
    for caption in captions["apart"]:
        a, b = (region.thing for region in caption.regions)
        assert caption not in worded or (a.kind, b.kind) == ("pallet", "pallet")
        metres = int(re.fullmatch(r"About (\d+) meters\.", caption.text)[1])
        if metres and "buffer" not in (a.kind, b.kind):
            assert math.dist(a.position, b.position) == pytest.approx(metres, abs=0.51)


def test_inside_or_not_is_answered_equally_often(captions):
    answers = []
    for caption in captions["within"]:
        pallet, buffer = caption.regions
        assert (pallet.kind, buffer.kind) == ("pallet", "buffer")
        answers.append(caption.text)
        assert (caption.text == "Yes.") == is_inside(pallet, buffer)
    assert 0.4 < answers.count("Yes.") / len(answers) < 0.6


def test_the_number_of_pallets_inside(captions):
    words = ("Zero.", "One.", "Two.", "Three.", "Four.", "Five.", "Six.")
    for caption in captions["how_many"]:
        *pallets, buffer = caption.regions
        assert buffer.kind == "buffer" and {pallet.kind for pallet in pallets} == {"pallet"}
        assert words.index(caption.text) == sum(is_inside(p, buffer) for p in pallets)


def test_the_closest_of_several(captions):
    for caption in captions["closest"]:
        origin, *group = caption.regions
        best = int(re.fullmatch(r"\[Region (\d+)\] is\.", caption.text)[1])
        distances = [floor_distance(origin, region) for region in group]
        assert len(group) >= 2 and distances[best - 1] == min(distances)


def test_places_on_the_floor(captions, samples):
    cameras = {id(region): sample.scene.camera for sample in samples[:100] for region in sample.regions}
    for caption in captions["metric"]:
        (region,) = caption.regions
        camera = cameras[id(region)]
        ahead, aside, side = re.match(r"([\d.]+) meters ahead, ([\d.]+) meters (left|right)\.", caption.text).groups()
        right = float(aside) * (1 if side == "right" else -1)
        x = camera.position[0] + float(ahead) * math.sin(camera.yaw) + right * math.cos(camera.yaw)
        y = camera.position[1] + float(ahead) * math.cos(camera.yaw) - right * math.sin(camera.yaw)
        assert math.dist((x, y), region.thing.position) < 0.08


def test_several_regions_are_described_in_their_order(captions):
    for caption in captions["several"]:
        parts = re.findall(r"\[Region (\d+)\] (.*?)\.(?= \[|$)", caption.text)
        assert [int(number) for number, _ in parts] == list(range(len(caption.regions)))
        for (_, text), region in zip(parts, caption.regions):
            if "meters" in text:
                assert text.startswith(f"{region.ahead:.1f} meters ahead")
            else:
                assert text.split(" at ")[0] in NAMES[region.kind]
                if " at " in text:
                    assert text.endswith(f" at {percent(region)}")


def test_which_region_is_at_a_place(captions):
    for caption in captions["which"]:
        place = tuple(map(int, re.search(r"at \((\d+), (\d+)\)\?", caption.prompt).groups()))
        chosen = int(re.search(r"\[Region (\d+)\]", caption.text)[1])
        assert [percent(region) == place for region in caption.regions].index(True) == chosen


def test_order_is_from_left_to_right(captions):
    for caption in captions["order"]:
        order = [int(n) for n in re.findall(r"\[Region (\d+)\]", caption.text)]
        assert sorted(order) == list(range(len(caption.regions)))
        places = [caption.regions[i].u for i in order]
        assert places == sorted(places)


def test_extremes(captions):
    keys = {
        "leftmost": lambda r: r.u,
        "rightmost": lambda r: -r.u,
        "nearest": lambda r: r.ahead,
        "farthest": lambda r: -r.ahead,
    }
    for caption in captions["extreme"]:
        key = keys[re.search(r"the (\w+)\?", caption.prompt)[1]]
        chosen = caption.regions[int(re.search(r"\[Region (\d+)\]", caption.text)[1])]
        assert chosen is min(caption.regions, key=key)


def test_pairs_agree_with_the_floor(captions):
    zeros = 0
    for caption in captions["pair"]:
        a, b = caption.regions
        across, side, along, way, metres = re.match(
            r"\[Region 1\] is ([\d.]+) meters to the (left|right) and ([\d.]+) meters (farther|nearer)\. "
            r"The distance is ([\d.]+) meters\.",
            caption.text,
        ).groups()
        right = float(across) * (1 if side == "right" else -1)
        ahead = float(along) * (1 if way == "farther" else -1)
        assert (right, ahead) == pytest.approx((b.right - a.right, b.ahead - a.ahead), abs=0.051)
        if float(metres) == 0:
            zeros += 1
            assert "buffer" in (a.kind, b.kind)
        else:
            assert float(metres) == pytest.approx(math.hypot(right, ahead), abs=0.1)
    assert zeros


def test_pallets_inside_a_buffer(captions):
    for caption in captions["inside"]:
        named = {int(n) for n in re.findall(r"\[Region (\d+)\]", caption.text)}
        buffer = caption.regions[0]
        assert buffer.kind == "buffer"
        assert named == {i for i, r in enumerate(caption.regions) if i and is_inside(r, buffer)}


def test_the_empty_transporter(captions):
    for caption in captions["empty"]:
        named = [int(n) for n in re.findall(r"\[Region (\d+)\]", caption.text)]
        assert named == [i for i, r in enumerate(caption.regions) if not r.thing.carrying]


def test_each_of_several_regions_in_turn(captions):
    for caption in captions["name_each"]:
        found = re.findall(r"(\d+) ([a-z ]+?)(?= \d|\.$)", caption.text)
        assert [int(number) for number, _ in found] == list(range(len(caption.regions)))
        assert all(name in NAMES[region.kind] for (_, name), region in zip(found, caption.regions))
    for caption in captions["place_each"]:
        places = [int(place) for place in re.findall(r"\d+ at (\d+)", caption.text)]
        assert places == [percent(region)[0] for region in caption.regions]
    for caption in captions["inside_each"]:
        buffer, *pallets = caption.regions
        found = re.findall(r"(\d+) (in|out)", caption.text)
        assert [int(number) for number, _ in found] == list(range(1, len(pallets) + 1))
        inside = [is_inside(pallet, buffer) for pallet in pallets]
        assert [word == "in" for _, word in found] == inside
        words = ("Zero", "One", "Two", "Three", "Four", "Five", "Six")
        assert words.index(caption.text.split()[-1].rstrip(".")) == sum(inside)
    clear = 0
    for caption in captions["near_each"]:
        origin, *group = caption.regions
        metres = [floor_distance(origin, region) for region in group]
        said = [float(text) for text in re.findall(r"\d+ off (\d+\.\d)", caption.text)]
        assert said == pytest.approx(metres, abs=0.051)
        if best := re.search(r"\[Region (\d+)\]\.$", caption.text):
            assert metres[int(best[1]) - 1] == min(metres)
            clear += 1
    assert clear > 20


def test_distances_reckoned_from_places_in_metres(captions):
    for caption in captions["reckon_each"]:
        first, *others = caption.regions
        numbers = [int(text) for text in re.findall(r"\d+", caption.text)]
        assert numbers[:3] == [0, round(first.ahead), abs(round(first.right))]
        assert len(numbers) == 3 + 6 * len(others)
        for i, other in enumerate(others):
            number, ahead, aside, across, along, off = numbers[3 + 6 * i : 9 + 6 * i]
            assert (number, ahead, aside) == (i + 1, round(other.ahead), abs(round(other.right)))
            legs = abs(round(other.right) - round(first.right)), abs(ahead - numbers[1])
            assert (across, along) == legs and off == min(round(math.hypot(*legs)), 9)
        sides = [round(region.right) < 0 for region in caption.regions]
        words = ["with" if side == sides[0] else "apart" for side in sides[1:]]
        assert re.findall("with|apart", caption.text) == words


def test_loads(captions):
    for caption in captions["load"]:
        (transporter,) = caption.regions
        assert caption.text == ("Loaded." if transporter.thing.carrying else "Empty.")
    assert len({caption.text for caption in captions["load"]}) == 2


@pytest.mark.parametrize("category", ["count", "mcq", "distance"])
def test_questions_answered_by_their_workings_and_the_value_alone(captions, category):
    for caption in captions[f"worked_{category}"]:
        *_, value = caption.text.split(". ")
        if category == "count":
            inside = re.findall(r"(\d+) (in|out)", caption.text)
            words = ("Zero", "One", "Two", "Three", "Four", "Five", "Six")
            assert value == f"{words[sum(word == 'in' for _, word in inside)]}."
            assert all(caption.regions[int(number)].kind == "pallet" for number, _ in inside)
            assert len(inside) == sum(region.kind == "pallet" for region in caption.regions)
        elif category == "mcq":
            chosen = int(re.fullmatch(r"\[Region (\d+)\]\.", value)[1])
            metres = {int(n): int(m) for n, m in re.findall(r"(\d+) off (\d)", caption.text)}
            marked = re.findall(r"(\d+) (?:leftmost|rightmost)", caption.text)
            assert metres[chosen] == min(metres.values()) if metres else marked == [str(chosen)]
        elif legs := re.search(r"(\d+) across (\d+) along", caption.text):
            assert float(value.removesuffix(" meters.")) == pytest.approx(
                math.hypot(*map(float, legs.groups())), abs=0.76
            )
        else:
            assert value == "0.0 meters."


def test_legs_of_a_distance(captions):
    for caption in captions["legs"]:
        a, b = caption.regions
        numbers = [float(text) for text in re.findall(r"\d+\.\d", caption.text)]
        assert numbers[-1] == pytest.approx(floor_distance(a, b), abs=0.051)
        if numbers[-1] > 0:
            legs = (abs(a.right - b.right), abs(a.ahead - b.ahead))
            assert numbers[:2] == pytest.approx(legs, abs=0.051)


def test_scene_captions_count_and_place_what_is_seen(samples, rng):
    words = {"a": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10}
    for sample in samples[:60]:
        coarse, listing = scene_captions(sample.regions, 2, rng)
        for caption in (listing, coarse):
            head = caption.text.split(".")[0]
            assert MASK not in caption.prompt and not caption.regions
            for kind, noun in (
                ("pallet", "pallet"),
                ("buffer", "buffer region"),
                ("transporter", "transporter"),
                ("shelf", "shel"),
            ):
                found = re.search(rf"(\w+) {noun}", head)
                assert (words[found[1]] if found else 0) == sum(r.kind == kind for r in sample.regions)
        places = [tuple(map(int, m)) for m in re.findall(r"\((\d+), (\d+)\)", listing.text)]
        assert places and set(places) <= {percent(region) for region in sample.regions}
        assert [u for u, _ in places] == sorted(u for u, _ in places)


def test_no_caption_is_longer_than_allowed(samples, rng):
    for sample in samples[:50]:
        for caption in Captioner(sample.regions, 3, rng, STYLE).captions(CAPTIONS):
            assert len(caption.regions) <= 4  # a buffer and three pallets
