"""Spatial questions against lengths and places worked out from the scene's boxes, apart from the code that asks."""

from __future__ import annotations

import cmath
import math
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from smolrgpt_jax.data.masks import RLE, decode
from smolrgpt_jax.warehouse.words.spatial_questions import (
    QUALITATIVE,
    QUANTITATIVE,
    Solid,
    ask,
    benchmark_questions,
    clock_hour,
    compared,
    conversation,
    measured,
    solids,
)

METRES = {"meters": 1.0, "centimeters": 0.01, "feet": 0.3048, "inches": 0.0254}
# Which answers say yes: their first word.
YES = {"Yes,": True, "Indeed,": True, "No,": False, "In": False}


@pytest.fixture(scope="module")
def asked(samples, config):
    rng = np.random.default_rng(5)
    return [
        (sample.scene, question)
        for sample in samples[:150]
        for question in benchmark_questions(solids(sample.scene, sample.regions, config.width, config.height), rng)
    ]


def box(scene, region) -> np.ndarray:
    """Low and high corner (right, ahead, up) of all boxes of a thing, float64[2, 3], relative to the camera's foot."""
    points = []
    for cuboid in scene.cuboids:
        if cuboid.owner == region.thing.number:
            for dx in (-0.5, 0.5):
                for dy in (-0.5, 0.5):
                    corner = complex(dx * cuboid.size[0], dy * cuboid.size[1]) * cmath.exp(1j * cuboid.yaw)
                    world = corner + complex(*cuboid.center[:2]) - complex(*scene.camera.position[:2])
                    # The camera's heading is clockwise from the y axis.
                    seen = world * cmath.exp(1j * scene.camera.yaw)
                    for dz in (-0.5, 0.5):
                        points.append((seen.real, seen.imag, cuboid.center[2] + dz * cuboid.size[2]))
    return np.array([np.min(points, 0), np.max(points, 0)])


def boxes(scene, question) -> list[np.ndarray]:
    return [box(scene, region) for region in question.regions]


def texts(question) -> tuple[str, str]:
    return question.texts(("Region [0]", "Region [1]"))


def of(asked, *categories):
    return [(scene, q) for scene, q in asked if q.category in categories]


def test_every_category_is_asked_often(asked):
    found = Counter(q.category for _, q in asked)
    assert set(found) == {*QUALITATIVE, *QUANTITATIVE} and len(found) == 24
    assert all(found[category] > 80 for category in QUALITATIVE), found
    assert all(found[category] > 240 for category in QUANTITATIVE), found


def test_regions_of_a_question_differ_and_its_texts_are_filled(asked):
    for _, q in asked:
        assert len({r.index for r in q.regions}) == len(q.regions)
        assert len(q.regions) == (1 if q.category in ("width_data", "height_data") else 2)
        assert all(r.kind != "buffer" for r in q.regions)
        prompt, answer = texts(q)
        assert "{" not in prompt + answer
        assert set(re.findall(r"Region \[(\d)\]", prompt)) == {str(i) for i in range(len(q.regions))}


@pytest.mark.parametrize(
    ("category", "length"),
    [
        ("width_data", lambda a: a[1][0] - a[0][0]),
        ("height_data", lambda a: a[1][2] - a[0][2]),
        ("distance_data", lambda a, b: np.linalg.norm(a.mean(0) - b.mean(0))),
        ("horizontal_distance_data", lambda a, b: np.hypot(*(a.mean(0) - b.mean(0))[:2])),
        ("vertical_distance_data", lambda a, b: abs(a.mean(0)[2] - b.mean(0)[2])),
    ],
)
def test_lengths_in_the_answers(asked, category, length):
    units = Counter()
    for scene, q in of(asked, category):
        number, unit = re.search(r"([\d.]+) (\w+)", texts(q)[1].replace("Region [", "")).groups()
        expected = length(*boxes(scene, q))
        assert float(number) * METRES[unit] == pytest.approx(expected, abs=0.0051 * METRES[unit] + 1e-9)
        assert q.value == pytest.approx(expected)
        units[unit] += 1
    assert set(units) == set(METRES)


def test_directions_are_the_benchmarks_hours(asked):
    """The hours of the release: floor of the angle to the left of straight ahead, in steps of 30 degrees, before 12."""
    hours = Counter()
    for scene, q in of(asked, "direction"):
        a, b = (found.mean(0) for found in boxes(scene, q))
        left = math.degrees(math.atan2(a[0] - b[0], b[1] - a[1])) % 360
        expected = int(12 - left // 30) or 12
        (hour,) = re.findall(r"(\d+) o'clock", texts(q)[1])
        assert int(hour) == q.value == expected
        assert 4.99 < left % 30 < 25.01
        hours[expected] += 1
    assert set(hours) == set(range(1, 13))


@pytest.mark.parametrize(
    ("right", "ahead", "hour"),
    [(0.1, 5, 1), (-0.1, 5, 12), (5, 2, 3), (5, -2, 4), (1, -5, 6), (-1, -5, 7), (-5, 1, 10), (-5, -1, 9)],
)
def test_clock_hours_by_hand(right, ahead, hour):
    assert clock_hour(right, ahead)[0] == hour


def holds(name: str, a: np.ndarray, b: np.ndarray) -> bool:
    size_a, size_b = a[1] - a[0], b[1] - b[0]
    return {
        "left": a.mean(0)[0] < b.mean(0)[0],
        "above": a.mean(0)[2] > b.mean(0)[2],
        "big": size_a.prod() > size_b.prod(),
        "tall": size_a[2] > size_b[2],
        "wide": size_a[0] > size_b[0],
        "behind": a[0][1] > b[0][1],
    }[name]


OPPOSITES = {"right": "left", "below": "above", "small": "big", "short": "tall", "thin": "wide", "front": "behind"}


def test_predicates_and_choices(asked):
    answers = defaultdict(list)
    for scene, q in of(asked, *QUALITATIVE):
        name, form = q.category.rsplit("_", 1)
        expected = holds(OPPOSITES.get(name, name), *boxes(scene, q)) != (name in OPPOSITES)
        answer = texts(q)[1]
        if form == "predicate":
            said = YES[answer.split()[0]]
        else:
            (number,) = re.findall(r"Region \[(\d)\]", answer)
            said = number == "0"
        assert said == expected, (q.category, texts(q))
        answers[q.category].append(said)
    for category, found in answers.items():
        # Four standard errors of a fair coin: the order of the pair is random.
        assert abs(np.mean(found) - 0.5) < 2 / math.sqrt(len(found)), category


def test_what_is_left_or_above_also_looks_so(asked):
    for _, q in of(asked, "left_predicate", "right_predicate", "left_choice", "right_choice"):
        a, b = q.regions
        assert (a.u < b.u) == (bool(q.value) == q.category.startswith("left")) or q.category.endswith("choice")
        assert abs(a.u - b.u) >= 0.02
    for _, q in of(asked, "above_predicate", "above_choice", "below_predicate", "below_choice"):
        assert abs(q.regions[0].v - q.regions[1].v) >= 0.02


def test_pairs_that_nearly_agree_are_not_asked(asked):
    for scene, q in of(asked, *QUALITATIVE):
        name = q.category.rsplit("_", 1)[0]
        a, b = boxes(scene, q)
        size_a, size_b = a[1] - a[0], b[1] - b[0]
        name = OPPOSITES.get(name, name)
        if name in ("tall", "wide"):
            values = size_a[2 if name == "tall" else 0], size_b[2 if name == "tall" else 0]
            assert max(values) >= 1.2 * min(values)
        elif name == "big":
            assert max(size_a.prod(), size_b.prod()) >= 1.5 * min(size_a.prod(), size_b.prod())
        else:
            axis = {"left": 0, "behind": 1, "above": 2}[name]
            assert abs(a.mean(0)[axis] - b.mean(0)[axis]) >= {"left": 0.3, "behind": 0.5, "above": 0.2}[name]
    for _, q in of(asked, "distance_data", "horizontal_distance_data", "vertical_distance_data"):
        assert q.value >= 0.2


def solid(right=0.0, ahead=5.0, size=(1.0, 1.0, 1.0), u=0.5, v=0.5, whole=True) -> Solid:
    class Seen:
        pass

    region = Seen()
    region.u, region.v, region.index = u, v, 0
    low = (right - size[0] / 2, ahead - size[1] / 2, 0.0)
    return Solid(region, low, tuple(a + b for a, b in zip(low, size)), whole)


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [
        ("left", solid(0.0, u=0.4), solid(0.2, u=0.6)),
        ("left", solid(0.0, u=0.6), solid(2.0, u=0.4)),
        ("above", solid(size=(1, 1, 1), v=0.4), solid(size=(1, 1, 1.2), v=0.6)),
        ("tall", solid(size=(1, 1, 1.1)), solid()),
        ("tall", solid(size=(1, 1, 2), whole=False), solid()),
        ("wide", solid(size=(1.1, 1, 1)), solid()),
        ("big", solid(size=(1, 1, 1.4)), solid()),
        ("behind", solid(ahead=5.4), solid()),
        ("front", solid(ahead=5.4), solid()),
    ],
)
def test_ambiguous_pairs(name, a, b):
    assert compared(name, a, b) is None and compared(name, b, a) is None


def test_lengths_of_what_is_cut_off_are_not_asked():
    assert measured("width_data", [solid(whole=False)]) is None
    assert measured("height_data", [solid(size=(1, 1, 1.3))]) == pytest.approx(1.3)


def test_only_what_is_wholly_seen_is_measured(samples, config):
    """Its mask spans the box of its projected corners."""
    checked = 0
    for sample in samples[:60]:
        for found in solids(sample.scene, sample.regions, config.width, config.height):
            mask = decode(RLE(config.height, config.width, found.region.counts.encode()))
            rows, columns = np.nonzero(mask)
            corners = np.concatenate(
                [c.corners() for c in sample.scene.cuboids if c.owner == found.region.thing.number]
            )
            across, down, _ = sample.scene.camera.project(corners).T * config.width
            share = min((np.ptp(columns) + 1) / np.ptp(across), (np.ptp(rows) + 1) / np.ptp(down))
            assert share >= 0.6 and found.whole == (share >= 0.9)
            checked += found.whole
    assert checked > 200


def test_conversations_have_turns_of_different_categories(samples, config):
    rng = np.random.default_rng(1)
    lengths = []
    for sample in samples[:60]:
        found = solids(sample.scene, sample.regions, config.width, config.height)
        turns = conversation(found, rng)
        assert len({q.category for q in turns}) == len(turns) <= 5
        lengths.append(len(turns))
    assert np.mean(lengths) > 4.5


def test_no_question_about_nothing():
    rng = np.random.default_rng(0)
    assert ask([solid()], rng, "left_predicate", 3) == [] and len(ask([solid()], rng, "width_data", 3)) == 1
