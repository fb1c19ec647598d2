from __future__ import annotations

import cmath
import math

import pytest

from eval.reading.bench_rules import CATEGORIES, QUALITATIVE, QUANTITATIVE
from eval.scoring.bench_scores import answer_error, clock_hours, describe_bench, group_of, is_success, score_bench
from smolrgpt_jax.errors import DataError


def item(category, value, truth, name=None, image="a.png"):
    return {
        "id": name or f"{category}{value}{truth}",
        "image": image,
        "category": category,
        "value": value,
        "truth_value": truth,
    }


def test_hours_are_the_angle_between_hands():
    for first in range(1, 13):
        for second in range(1, 13):
            hands = cmath.exp(2j * math.pi * first / 12), cmath.exp(2j * math.pi * second / 12)
            angle = abs(math.degrees(cmath.phase(hands[0] / hands[1])))
            assert answer_error("direction", first, second) == pytest.approx(angle)
            assert is_success("direction", first, second) == (angle < 31)
    assert clock_hours(12, 1) == clock_hours(1, 12) == 1


@pytest.mark.parametrize(
    "answer, truth, success",
    [
        (0.75, 1.0, True),
        (1.25, 1.0, True),
        (0.7499, 1.0, False),
        (1.2501, 1.0, False),
        (0.0, 0.0, True),
        (0.01, 0.0, False),
        (None, 1.0, False),
        (1.0, None, False),
    ],
)
def test_a_length_succeeds_within_a_quarter(answer, truth, success):
    assert is_success("height_data", answer, truth) is success


def test_every_category_belongs_to_a_column_of_the_tables():
    columns = {category: group_of(category) for category in CATEGORIES}
    assert set(columns.values()) == {*QUALITATIVE, *QUANTITATIVE}
    assert columns["tall_choice"] == columns["short_predicate"] == "tall/short"
    assert columns["distance_data"] == "direct_distance" and columns["direction"] == "direction"


@pytest.fixture
def metrics():
    return score_bench(
        [
            item("left_predicate", True, True),
            item("right_choice", 0, 1),
            item("right_choice", None, 1),
            item("above_predicate", False, False, image="b.png"),
            item("width_data", 1.0, 2.0),
            item("width_data", 2.2, 2.0),
            item("width_data", None, 2.0),
            item("direction", 12, 1),
            item("direction", 6, 12, image="b.png"),
            item("height_data", 1.0, None),
        ]
    )


def test_columns_average_and_errors(metrics):
    assert metrics["qualitative"] == {
        "below/above": 100.0,
        "left/right": pytest.approx(100 / 3),
        "big/small": None,
        "tall/short": None,
        "wide/thin": None,
        "behind/front": None,
        # Over questions, not over columns.
        "average": 50.0,
    }
    width, direction = metrics["quantitative"]["width"], metrics["quantitative"]["direction"]
    assert width["success"] == pytest.approx(100 / 3)
    # The unreadable answer fails but has no error.
    assert width["error"] == pytest.approx((1.0 + 0.2) / 2.0001 / 2)
    assert direction == {"success": 50.0, "error": (30 + 180) / 2}
    assert metrics["quantitative"]["height"] == {"success": 0.0, "error": None}
    assert metrics["quantitative"]["direct_distance"] == {"success": None, "error": None}
    assert (metrics["questions"], metrics["unreadable"]) == (10, 2)
    assert metrics["unreadable_truths"] == ["height_data1.0None"]
    assert metrics["categories"]["right_choice"] == {"questions": 2, "correct": 0, "unreadable": 1, "success": 0.0}
    assert set(metrics["categories"]) == set(CATEGORIES)


def test_intervals_draw_pictures(metrics):
    assert metrics["bootstrap"]["clusters"] == 2
    # Only picture b holds an above question; the directions are right in a and wrong in b.
    assert metrics["intervals"]["below/above"] == [100, 100]
    assert metrics["intervals"]["direction"] == [0, 100]
    assert metrics["intervals"]["average"] == pytest.approx([100 / 3, 100])
    assert metrics["intervals"]["wide/thin"] is None


def test_the_table_shows_both_tables_and_says_who_judged(metrics):
    lines = describe_bench(metrics).splitlines()
    assert lines[2].split() == ["left/right", "33.33", "33.33", "to", "33.33", "3"]
    assert lines[7].split() == ["average", "50.00", "33.33", "to", "100.00", "4"]
    assert lines[-5].split() == ["direction", "50.00", "0.00", "to", "100.00", "2", "105.0", "deg"]
    assert "GPT-4" in lines[-3] and "2 answers unreadable" in lines[-3]
    assert "(2 pictures)" in lines[-2]
    assert "'height_data1.0None'" in lines[-1]


def test_unusable_questions_are_an_error():
    with pytest.raises(DataError, match="no question"):
        score_bench([])
    with pytest.raises(DataError, match="more than once: 'x'$"):
        score_bench([item("direction", 1, 1, "x"), item("direction", 2, 1, "x"), item("direction", 2, 1, "y")])
