"""Answers recomputed from the scene's geometry and from the question's text, apart from the code that asks."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from eval.reading.rules import normalized_answer, question_category
from smolrgpt_jax.data.records import IMAGE, MASK, WAREHOUSE_CATEGORIES
from smolrgpt_jax.warehouse.parameters import AnswerStyle
from smolrgpt_jax.warehouse.words.questions import Asker

FEWEST = {"left_right": 2, "count": 3, "mcq": 3, "distance": 2}
MOST = {"left_right": 2, "count": 15, "mcq": 13, "distance": 13}


def asked(samples, category):
    return [q for sample in samples for q in sample.questions if q.category == category]


def within(thing, buffer) -> float:
    """Metres a centre lies inside of a buffer's nearest side; negative outside."""
    along = (math.cos(buffer.yaw), math.sin(buffer.yaw))
    dx, dy = thing.position[0] - buffer.position[0], thing.position[1] - buffer.position[1]
    return min(
        buffer.size[0] / 2 - abs(dx * along[0] + dy * along[1]), buffer.size[1] / 2 - abs(dy * along[0] - dx * along[1])
    )


def metres(a, b) -> float:
    return math.hypot(a.thing.position[0] - b.thing.position[0], a.thing.position[1] - b.thing.position[1])


def of_kind(question, kind):
    return [region for region in question.regions if region.kind == kind]


def by_side(group, word):
    ordered = sorted(group, key=lambda region: region.u)
    return ordered[{"left": 0, "middle": 1, "right": -1}[word.removesuffix("most")]]


def named_places(text, noun):
    """Words such as "leftmost" in front of a noun, in the order of the text."""
    return re.findall(rf"(leftmost|rightmost|middle) {noun}", text)


def test_every_category_is_asked_about_most_scenes(samples):
    for category in WAREHOUSE_CATEGORIES:
        assert len(asked(samples, category)) >= 1.6 * len(samples), category


def test_masks_and_region_numbers_fit(samples):
    for category in WAREHOUSE_CATEGORIES:
        for q in asked(samples, category):
            assert q.prompt.count(MASK) == len(q.regions)
            assert FEWEST[category] <= len(q.regions) <= MOST[category]
            assert len({region.index for region in q.regions}) == len(q.regions)
            assert q.prompt.replace(IMAGE + "\n", "", 1).count(IMAGE) == 0
            assert "{" not in q.prompt + q.answer
            numbers = [int(n) for n in re.findall(r"\[Region (\d+)\]", q.answer)]
            assert numbers and max(numbers) < len(q.regions)


def test_regions_have_the_kind_that_the_text_gives_them(samples):
    nouns = {
        "pallet": "pallet",
        "buffer region": "buffer",
        "buffer area": "buffer",
        "shelf": "shelf",
        "transporter": "transporter",
    }
    for sample in samples:
        for q in sample.questions:
            for noun, number in re.findall(
                r"(pallet|buffer region|buffer area|shelf|transporter) \[Region (\d+)\]", q.answer
            ):
                assert q.regions[int(number)].kind == nouns[noun], q.answer


def test_the_answer_text_says_the_normalised_answer(samples):
    for sample in samples:
        for q in sample.questions:
            expected = int(q.normalized_answer) if q.category == "mcq" else q.normalized_answer
            assert normalized_answer(q.category, q.prompt, q.answer) == expected, (q.prompt, q.answer)
            assert question_category(q.prompt) == q.category, q.prompt


def test_left_right_is_the_side_of_the_first_by_centroid(samples):
    for q in asked(samples, "left_right"):
        first, second = q.regions
        assert q.normalized_answer == ("left" if first.u < second.u else "right")
        assert abs(first.u - second.u) >= 0.02
        assert re.findall(r"\[Region (\d+)\]", q.answer) == ["0", "1"]


def test_distances_are_between_the_objects_that_the_question_names(samples):
    for q in asked(samples, "distance"):
        pallets, buffers, shelves, transporters = (
            of_kind(q, kind) for kind in ("pallet", "buffer", "shelf", "transporter")
        )
        if transporters:
            ends = transporters[0], by_side(buffers, named_places(q.prompt, "buffer")[0])
        elif buffers:
            ends = (
                by_side(pallets, named_places(q.prompt, "pallet")[0]),
                by_side(buffers, named_places(q.prompt, "buffer")[0]),
            )
        elif shelves:
            side = re.search(r"shelf on the (left|right)", q.prompt)
            ends = (
                by_side(pallets, named_places(q.prompt, "pallet")[0]),
                by_side(shelves, side[1]) if side else shelves[0],
            )
        elif "most" in q.prompt:
            ends = by_side(pallets, "leftmost"), by_side(pallets, "rightmost")
        else:
            ends = pallets
        inside = ends[1].kind == "buffer" and within(ends[0].thing, ends[1].thing) > 0
        assert q.normalized_answer == (0 if inside else pytest.approx(metres(*ends), abs=0.0051)), q.prompt
        assert isinstance(q.normalized_answer, float)


def test_counts_are_the_pallets_inside_the_buffer_that_is_meant(samples):
    for sample in samples:
        for q in sample.questions:
            if q.category != "count":
                continue
            buffers, shelves = of_kind(q, "buffer"), of_kind(q, "shelf")
            if shelves:
                buffer = min(buffers, key=lambda b: metres(b, shelves[0]))
            elif len(buffers) > 1:
                buffer = by_side(buffers, named_places(q.prompt, "buffer")[0])
            else:
                buffer = buffers[0]
            inside = [i for i, r in enumerate(q.regions) if r.kind == "pallet" and within(r.thing, buffer.thing) > 0]
            assert q.normalized_answer == len(inside)
            # Also of the scene, not only of what is seen of it.
            assert len(inside) == sum(within(p, buffer.thing) > 0 for p in sample.scene.of_kind("pallet"))
            found = re.search(r"The pallets? ((?:\[Region \d+\] )+)", q.answer)
            assert [int(n) for n in re.findall(r"\d+", found[1] if found else "")] == inside


def test_the_chosen_region_is_clearly_the_best_one(samples):
    for q in asked(samples, "mcq"):
        chosen = q.regions[int(q.normalized_answer)]
        rivals = of_kind(q, chosen.kind)
        if "transporter" in q.prompt or "shel" in q.prompt:
            if "transporter" in q.prompt:
                goals = [r for r in of_kind(q, "transporter") if not r.thing.carrying]
            else:
                side = re.search(r"on the (left|right)", q.prompt)
                goals = [by_side(of_kind(q, "shelf"), side[1]) if side else of_kind(q, "shelf")[0]]
            assert len(goals) == 1
            distances = sorted(metres(goals[0], rival) for rival in rivals)
            assert metres(goals[0], chosen) == distances[0]
            assert distances[1] >= 1.1 * distances[0]
        else:
            assert chosen is by_side(rivals, re.search(r"(leftmost|rightmost)", q.prompt)[1])


def test_a_scene_never_gets_the_same_question_twice(samples):
    for sample in samples:
        keys = [(q.category, q.about) for q in sample.questions]
        assert len(set(keys)) == len(keys)


def test_objects_stand_clearly_inside_or_outside_of_buffers(samples):
    for sample in samples:
        for buffer in sample.scene.of_kind("buffer"):
            for kind in ("pallet", "transporter"):
                assert all(abs(within(thing, buffer)) > 0.3 for thing in sample.scene.of_kind(kind))


def test_pallets_and_transporters_do_not_stand_in_each_other(samples):
    for sample in samples:
        things = [t for t in sample.scene.things if t.kind in ("pallet", "transporter")]
        gaps = [math.dist(a.position, b.position) for i, a in enumerate(things) for b in things[:i]]
        assert min(gaps, default=9) > 0.9


def test_most_things_are_seen(samples):
    seen = np.mean([len(sample.regions) / len(sample.scene.things) for sample in samples])
    assert seen > 0.9


def test_settled_answers_follow_from_the_question(samples):
    """With settled wording, equal prompts about equal things get equal answers, and distances their decimals."""
    texts: dict[tuple, set[str]] = {}
    for sample in samples[:60]:
        for seed in range(4):
            asker = Asker(sample.regions, 0, np.random.default_rng(seed), AnswerStyle(1, settled=True))
            for category in ("left_right", "mcq", "distance"):
                for question in asker.ask(category, 3):
                    regions = tuple(region.index for region in question.regions)
                    prompt = question.prompt.removeprefix(f"{IMAGE}\n")
                    texts.setdefault((id(sample), prompt, regions), set()).add(question.answer)
                    if category == "distance" and question.normalized_answer:
                        assert re.search(r"\d+\.\d meters", question.answer)
                        assert normalized_answer(category, prompt, question.answer) == question.normalized_answer
    assert len(texts) > 500
    assert all(len(found) == 1 for found in texts.values())


def test_impossible_decimals_are_refused():
    with pytest.raises(ValueError, match="decimals"):
        AnswerStyle(decimals=3)
