from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE, bench_answer
from smolrgpt_jax.warehouse.words.spatial_questions import UNITS
from smolrgpt_jax.warehouse.words.wordings import SPATIAL

A, B = "Region [0]", "Region [1]"
REAL = Path(__file__).parents[2] / "data_files" / "spatialrgpt_bench" / "qa_pairs.json"


def close(value, expected) -> bool:
    return value is expected if expected is None else type(value) is type(expected) and abs(value - expected) < 1e-6


def test_the_benchmark_has_24_categories():
    assert len(set(CATEGORIES)) == len(CATEGORIES) == 24


def test_every_real_answer_is_read():
    # Read off by hand, in the file's order.
    lengths = [30.05 * 0.0254, 0.2625, 5.66 * 0.0254, 4.19 * 0.3048, 37.92 * 0.0254, 21.58 * 0.0254]
    expected = [False, 0, 1, False, 1, True, 1, 0, True, True, *lengths, 2]
    records = json.loads(REAL.read_text(encoding="utf-8"))
    assert len(records) == len(expected)
    wrong = [
        (record, value)
        for record, truth in zip(records, expected)
        if not close(value := bench_answer(record["category"], record["gt"]), truth)
    ]
    assert wrong == []


@pytest.mark.parametrize("name", [name for names in QUALITATIVE.values() for name in names])
@pytest.mark.parametrize("lead", [True, False])
def test_all_our_wordings_of_a_predicate_are_read_with_and_without_yes_or_no(name, lead):
    words = SPATIAL[f"{name}_predicate"]
    for expected, wordings in ((True, words["yes"]), (False, words["no"])):
        for wording in wordings:
            answer = wording.format(a=A, b=B)
            if not lead:
                answer = answer.split(", ", 1)[1]
            assert bench_answer(f"{name}_predicate", answer) is expected, answer


@pytest.mark.parametrize("category", [category for category in SPATIAL if category.endswith("_choice")])
def test_all_our_wordings_of_a_choice_are_read(category):
    for wording in SPATIAL[category]["answers"]:
        for number, chosen in enumerate((A, B)):
            assert bench_answer(category, wording.format(x=chosen)) == number, wording


@pytest.mark.parametrize("category", [category for category in SPATIAL if category.endswith("_data")])
@pytest.mark.parametrize("unit", UNITS)
def test_all_our_wordings_of_a_length_are_read(category, unit):
    for wording in SPATIAL[category]["answers"]:
        value = bench_answer(category, wording.format(a=A, b=B, x=f"12.34 {unit}"))
        assert value == pytest.approx(12.34 * UNITS[unit], abs=1e-6), wording


@pytest.mark.parametrize("hour", range(1, 13))
def test_all_hours_are_read(hour):
    for wording in SPATIAL["direction"]["answers"]:
        assert bench_answer("direction", wording.format(a=A, b=B, x=hour)) == hour


@pytest.mark.parametrize(
    "name, answer, expected",
    [
        ("behind", "That is true.", True),
        ("front", "That's false.", False),
        ("front", "Actually, no.", False),
        ("front", "Of course.", True),
        ("left", "Right, [A] is left of [B].", True),
        ("left", "It is right of [B].", False),
        ("left", "[B] is to the right of [A].", True),
        ("left", "Left of [B] is [A].", True),
        ("above", "It is below [B].", False),
        ("wide", "The width of [A] exceeds that of [B].", True),
        ("wide", "[A]'s width does not surpass [B]'s.", False),
        ("thin", "[A]'s width is less than [B]'s.", True),
        ("tall", "[A]'s height isn\u2019t larger than [B]'s.", False),
        ("short", "[A] is not as tall as [B].", True),
        ("small", "[A] takes up less space than [B].", True),
        ("front", "[A] is closer to the viewer.", True),
        # What is said after a plain no is not believed.
        ("behind", "No, [B] is in front of [A].", False),
        ("left", "[A] and [B] are aligned, with neither to the left.", None),
        ("left", "[A] is above [B].", None),
        ("left", "", None),
        ("left", "left left left left left left left", None),
    ],
)
def test_a_predicate(name, answer, expected):
    answer = answer.replace("[A]", A).replace("[B]", B)
    assert bench_answer(f"{name}_predicate", answer) is expected


@pytest.mark.parametrize(
    "name, answer, expected",
    [
        ("right", "[A] is to the left of [B].", 1),
        ("tall", "Between [A] and [B], the taller one is [A].", 0),
        ("tall", "Compared to [B], [A] is taller.", 0),
        ("tall", "[B] is not taller than [A].", 0),
        ("short", "With less height is [B].", 1),
        ("below", "[B]", 1),
        ("below", "Region 1", 1),
        ("below", "1", 1),
        ("below", "The second one.", 1),
        ("below", "[A] or [B]", None),
        ("below", "Region [5] is below.", None),
        ("below", "Both are at the same height as [A].", None),
        ("below", "none of them", None),
    ],
)
def test_a_choice(name, answer, expected):
    assert close(bench_answer(f"{name}_choice", answer.replace("[A]", A).replace("[B]", B)), expected)


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("Region [0] is 1.02 meters wide.", 1.02),
        ("It is 48.47 centimeters.", 0.4847),
        ("10 inches", 0.254),
        ("3.5 ft.", 1.0668),
        ("30 in.", 0.762),
        ("5 feet 3 inches", 1.6002),
        ("5 feet, and 3 inches", 1.6002),
        ("two meters", 2.0),
        ("850 mm", 0.85),
        ("2.5", 2.5),
        ("The width of Region [0] is 2,5 m.", 2.5),
        ("30.05 in tall.", 0.76327),
        ("Region [0] is 30.05 in in height.", 0.76327),
        ('26.25" wide', 0.66675),
        ("5'6\"", 1.6764),
        ("Region [0] is 5\u2032 6\u2033 tall.", 1.6764),
        ("5 ft 6 in tall", 1.6764),
        ("two and a half feet", 0.762),
        ("three point five inches", 0.0889),
        ("Half a meter", 0.5),
        ("a foot", 0.3048),
        ("1,200 millimeters", 1.2),
        ("4 feet, not 3 feet.", 1.2192),
        ("Not 3 feet but 4 feet.", 1.2192),
        ("1.5 meters or 4.92126 feet", 1.5),
        ("between 2 and 3 meters", None),
        ("2.5 meters (2 to 3 meters)", 2.5),
        ("Region [0] is wide.", None),
        ("between 2 and 3", None),
        ("9" * 400, None),
    ],
)
def test_a_length_in_metres(answer, expected):
    assert close(bench_answer("width_data", answer), expected)


@pytest.mark.parametrize(
    "answer, expected",
    [
        ("Region [0] will find Region [1] around the 2 o'clock direction.", 2),
        ("12 o\u2019clock", 12),
        ("at two o'clock", 2),
        ("11 o' clock", 11),
        ("7:00", 7),
        ("7", 7),
        ("It is at 4 o'clock, not 3 o'clock.", 4),
        ("It is not at 3 o'clock but at 4 o'clock.", 4),
        ("10 o'clock (between 9 and 11 o'clock)", 10),
        ("between 2 and 3 o'clock", None),
        ("0 o'clock", None),
        ("13 o'clock", None),
        ("at 3 or 4", None),
        ("to the left of Region [0]", None),
    ],
)
def test_a_direction(answer, expected):
    assert close(bench_answer("direction", answer), expected)


WORDS = st.lists(
    st.sampled_from(
        [
            "Region",
            "[0]",
            "Region",
            "[1]",
            "Region",
            "[9]",
            "yes",
            "no",
            "not",
            "left",
            "right",
            "taller",
            "width",
            "height",
            "less",
            "exceeds",
            "'s",
            "of",
            "than",
            "is",
            "the",
            "3",
            "2.5",
            "meters",
            "feet",
            "inches",
            "in",
            "o'clock",
            ":",
            ".",
            ",",
            "neither",
            "both",
            "first",
            "99999999999999999999",
            "²",
            "٣",
        ]
    ),
    max_size=20,
).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(CATEGORIES), st.text(max_size=60) | WORDS)
def test_any_text_gives_a_value_of_its_category_or_none(category, answer):
    value = bench_answer(category, answer)
    if category == "direction":
        assert value is None or (type(value) is int and 1 <= value <= 12)
    elif category in QUANTITATIVE.values():
        assert value is None or (type(value) is float and value >= 0)
    elif category.endswith("choice"):
        assert value is None or (type(value) is int and value in (0, 1))
    else:
        assert value in (None, True, False) and type(value) is not int


def test_an_unknown_category_is_an_error():
    with pytest.raises(ValueError, match="colour"):
        bench_answer("colour", "red")
