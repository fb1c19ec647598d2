"""Worked answers against the regions they speak of, and against the plain answers to the same questions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from eval.reading.rules import normalized_answer
from smolrgpt_jax.data.records import WAREHOUSE_CATEGORIES
from smolrgpt_jax.warehouse.parameters import AnswerStyle
from smolrgpt_jax.warehouse.picture.view import floor_distance, is_inside
from smolrgpt_jax.warehouse.words import worked
from smolrgpt_jax.warehouse.words.questions import Asker


def asked_both_ways(samples, **style: bool):
    """The same questions, answered plainly and worked."""
    made = []
    for sample in samples[:100]:
        askers = [
            Asker(
                sample.regions, sample.scene.counted, np.random.default_rng(5), AnswerStyle(1, True, worked=on, **style)
            )
            for on in (False, True)
        ]
        for category in WAREHOUSE_CATEGORIES:
            plain, full = (asker.ask(category, 3) for asker in askers)
            assert len(plain) == len(full)
            made += zip(plain, full)
    return made


@pytest.fixture(scope="module")
def in_tenths(samples):
    return asked_both_ways(samples)


@pytest.fixture(scope="module")
def in_metres(samples):
    return asked_both_ways(samples, metres=True)


@pytest.fixture(scope="module")
def summed_up(samples):
    return asked_both_ways(samples, metres=True, summary=True)


@pytest.fixture(params=["in_tenths", "in_metres", "summed_up"])
def pairs(request):
    return request.getfixturevalue(request.param)


def said(answer: str, word: str) -> dict[int, str]:
    """What the answer says of each region: {3: "in", 4: "out"} of "3 in 4 out." for the words asked for."""
    return {int(number): found for number, found in re.findall(rf"(?<![\d.])(\d+) ({word})", answer)}


def test_the_question_and_its_value_stay_as_they_are(pairs):
    for plain, full in pairs:
        assert (plain.prompt, plain.normalized_answer, plain.regions) == (
            full.prompt,
            full.normalized_answer,
            full.regions,
        )


def test_the_plain_answer_is_the_worked_one_without_its_lists(pairs):
    lists = re.compile(
        r"(?:\d+ (?:no|leftmost|middle|rightmost|in|out|loaded|empty|off \d|at \(\d, \d\))[. ]\s?)+"
        r"|\d+ stands \d+ ahead \d+ (?:left|right)\. "
        r"|(?:\d+ at \d+ ahead \d+ (?:left|right) (?:with|apart) \d+ across \d+ along off \d"
        r"(?: nearest \d+ off \d)?[. ]\s?)+"
        r"|(?:(?:with|apart) )?\d+ across \d+ along(?: off \d+)?\. "
    )
    longer = 0
    for plain, full in pairs:
        assert lists.sub("", full.answer) == plain.answer
        longer += full.answer != plain.answer
    assert longer > 0.6 * len(pairs)  # all but left or right, and distances of zero


def test_rules_read_worked_answers(pairs):
    for _, full in pairs:
        read = normalized_answer(full.category, full.prompt, full.answer)
        assert str(read) == str(full.normalized_answer) or float(read) == float(full.normalized_answer)


def test_what_a_place_means_is_marked(pairs):
    checked = 0
    for _, full in pairs:
        found = said(full.answer, "no|leftmost|middle|rightmost")
        for kind in ("pallet", "buffer", "shelf"):
            group = sorted((n for n in found if full.regions[n].kind == kind), key=lambda n: full.regions[n].u)
            for number in group:
                place = {"leftmost": 0, "middle": 1, "rightmost": len(group) - 1}.get(found[number])
                if place is not None:
                    assert group[place] == number
                    assert f"[Region {number}]" in full.answer
                    checked += 1
            assert not group or any(found[number] != "no" for number in group)
    assert checked > 300


def test_places_are_tenths_of_the_picture(in_tenths):
    checked = 0
    for _, full in in_tenths:
        for number, u, v in re.findall(r"(\d+) at \((\d), (\d)\)", full.answer):
            region = full.regions[int(number)]
            assert (int(u), int(v)) == (min(int(10 * region.u), 9), min(int(10 * region.v), 9))
            checked += 1
    assert checked > 500


def test_counts_are_those_said_to_be_in(pairs):
    checked = 0
    for _, full in pairs:
        if full.category == "count":
            found = said(full.answer, "in|out")
            assert [full.regions[number].kind for number in found] == ["pallet"] * len(found)
            assert sum(word == "in" for word in found.values()) == full.normalized_answer
            checked += 1
    assert checked > 100


def test_the_nearest_is_the_one_said_to_be_nearest(in_tenths):
    checked = 0
    for _, full in in_tenths:
        found = {n: int(text.split()[1]) for n, text in said(full.answer, r"off \d").items()}
        if full.category == "mcq" and found:
            assert found[int(full.normalized_answer)] == min(found.values())
            checked += 1
    assert checked > 50


def test_legs_and_distance_make_a_right_angle(in_tenths):
    checked = 0
    for _, full in in_tenths:
        legs = re.search(r"(\d+) across (\d+) along", full.answer)
        if legs is None:
            assert full.category != "distance" or full.normalized_answer == 0
            continue
        across, along = map(float, legs.groups())
        assert np.hypot(across, along) == pytest.approx(full.normalized_answer, abs=0.76)  # whole metres
        checked += 1
    assert checked > 100


PLACE = r"(\d+) ahead (\d+) (left|right)"


def on_floor(ahead: str, aside: str, side: str) -> tuple[int, int]:
    return int(ahead), int(aside) * (-1 if side == "left" else 1)


def test_places_on_the_floor_are_whole_metres(in_metres):
    checked = 0
    for _, full in in_metres:
        for number, *place in re.findall(rf"(\d+) (?:stands|at) {PLACE}", full.answer):
            region = full.regions[int(number)]
            assert on_floor(*place) == pytest.approx((region.ahead, region.right), abs=0.5)
            checked += 1
    assert checked > 500


def test_all_that_follows_places_on_the_floor_follows_from_text(in_metres):
    listed = paired = 0
    for _, full in in_metres:
        stood = [on_floor(*place) for place in re.findall(rf"\d+ stands {PLACE}", full.answer)]
        for *place, side, across, along, off in re.findall(
            rf"at {PLACE} (with|apart) (\d+) across (\d+) along off (\d)", full.answer
        ):
            there = on_floor(*place)
            apart = np.subtract(stood[0], there)
            assert (int(along), int(across)) == tuple(abs(apart))
            assert int(off) == min(round(float(np.hypot(*apart))), 9)
            assert (side == "with") == ((stood[0][1] < 0) == (there[1] < 0))
            listed += 1
        if legs := re.search(r"(with|apart) (\d+) across (\d+) along\.", full.answer):
            side, *metres = legs.groups()
            assert tuple(map(int, metres))[::-1] == tuple(abs(np.subtract(*stood)))
            assert (side == "with") == ((stood[0][1] < 0) == (stood[1][1] < 0))
            # Each place is off by half a metre at most along either axis.
            assert np.hypot(*map(int, metres)) == pytest.approx(full.normalized_answer, abs=2**0.5)
            paired += 1
    assert listed > 200 and paired > 100


def test_a_summary_says_what_is_concluded_from(in_metres, summed_up):
    pairs = chosen = 0
    for (_, before), (_, after) in zip(in_metres, summed_up, strict=True):
        without = re.sub(r" nearest \d+ off \d", "", after.answer)
        if legs := re.search(r"(?:with|apart) (\d+) across (\d+) along off (\d+)\. ", without):
            *metres, off = map(int, legs.groups())
            if f"{metres[0]} across {metres[1]} along. " in before.answer:
                assert off == round(float(np.hypot(*metres)))
                without = without.replace(f" along off {off}. ", " along. ")
                pairs += 1
        assert before.answer == without
        items = re.findall(r"(\d+) at [^.]*? (\d+) across (\d+) along off (\d) nearest (\d+) off (\d)", after.answer)
        seen: dict[str, tuple[float, str]] = {}
        for number, across, along, off, best, best_off in items:
            seen[number] = float(np.hypot(int(across), int(along))), off
            assert seen[best] == (min(seen.values())[0], best_off)
        if items and after.category == "mcq":
            chosen += 1
    assert pairs > 100 and chosen > 50


def test_the_nearest_is_nearly_always_nearest_in_whole_metres(in_metres):
    right = []
    for _, full in in_metres:
        items = re.findall(rf"(\d+) at {PLACE} (?:with|apart) \d+ across \d+ along off (\d)", full.answer)
        found = {int(number): int(off) for number, *_, off in items}
        if full.category == "mcq" and found:
            right.append(found[int(full.normalized_answer)] == min(found.values()))
    assert len(right) > 50 and np.mean(right) > 0.9


def test_lists_of_one_scene(samples):
    regions = next(s.regions for s in samples if {"transporter", "buffer"} <= {r.kind for r in s.regions})
    pallets = [r for r in regions if r.kind == "pallet"]
    buffer = next(r for r in regions if r.kind == "buffer")
    transporter = next(r for r in regions if r.kind == "transporter")
    inside = said(worked.insides(pallets, 1, buffer), "in|out")
    assert inside == {i: "in" if is_inside(p, buffer) else "out" for i, p in enumerate(pallets, start=1)}
    state = "loaded" if transporter.thing.carrying else "empty"
    assert worked.loads([transporter], 4) == f"4 {state}. "
    metres = floor_distance(transporter, pallets[0])
    assert worked.nearness(pallets[:1], 0, transporter) == f"0 off {min(round(metres), 9)}. "
