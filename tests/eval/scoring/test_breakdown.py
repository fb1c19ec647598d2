from __future__ import annotations

import numpy as np
import pytest

from eval.scoring.breakdown import abstracted, calibration, describe_details, distance_errors, template_scores


def item(category, answer, truth, question="How far is <mask>?", image="a.png", name="x"):
    return {
        "id": name,
        "image": image,
        "category": category,
        "question": question,
        "normalized_answer": answer,
        "truth": truth,
    }


def test_numbers_and_runs_of_masks_make_no_template():
    assert abstracted("Which of the 12 in <mask> <mask>, <mask> is within 2.5 m of <mask>?") == (
        "Which of the # in <mask> is within # m of <mask>?"
    )


def test_templates_count_their_own_questions():
    items = [
        item("mcq", 1, 1, "Which in <mask> <mask>?"),
        item("mcq", 0, 1, "Which in <mask>?"),
        item("mcq", 0, 1, "What in <mask>?"),
        item("count", 2, 2, "Which in <mask>?"),
        item("distance", None, 2.0),
    ]
    assert template_scores(items) == [
        {"category": category, "template": words, "questions": n, "correct": correct, "accuracy": 100 * correct / n}
        for category, words, n, correct in (
            ("count", "Which in <mask>?", 1, 1),
            ("mcq", "Which in <mask>?", 2, 1),
            ("mcq", "What in <mask>?", 1, 0),
            ("distance", "How far is <mask>?", 1, 0),
        )
    ]


def test_distance_errors_by_true_distance():
    items = [
        item("distance", 0.0, 0.0),
        item("distance", 0.5, 0.0),
        item("distance", 2.2, 2.0),
        item("distance", 1.0, 1.6),
        item("distance", None, 1.2),
        item("distance", 30.0, 25.0),
        item("count", 3, 3),
    ]
    zero, near, far = distance_errors(items)
    assert (zero["low"], zero["high"], zero["questions"], zero["accuracy"]) == (0, 0, 2, 50)
    assert zero["mean_absolute_error"] == 0.25 and zero["mean_relative_error"] is None
    # The upper edge belongs to the bin: 2.0 lies in (1, 2].
    assert (near["low"], near["high"], near["questions"], near["readable"]) == (1, 2, 3, 2)
    assert near["mean_error"] == pytest.approx((0.2 - 0.6) / 2)
    assert near["mean_absolute_error"] == near["median_absolute_error"] == pytest.approx(0.4)
    assert near["mean_relative_error"] == pytest.approx(100 * (0.1 + 0.375) / 2)
    assert near["accuracy"] == pytest.approx(100 / 3)
    assert (far["low"], far["high"], far["mean_absolute_error"]) == (20, 25, 5)


def test_a_bin_without_a_readable_answer_has_no_error():
    (row,) = distance_errors([item("distance", None, 3.0)])
    assert (row["questions"], row["readable"], row["accuracy"]) == (1, 0, 0)
    assert row["mean_absolute_error"] is row["mean_error"] is row["mean_relative_error"] is None


def test_calibration_finds_the_line_answers_lie_on():
    truths = np.linspace(0.5, 14.5, 40)
    items = [item("distance", 1.5 + 0.5 * truth, truth) for truth in truths]
    items += [item("count", answer, 2) for answer in (1, 2, 2, 3, 4)] + [item("count", None, 3)]
    found = calibration(items)
    assert found["distance"]["slope"] == pytest.approx(0.5)
    assert found["distance"]["intercept"] == pytest.approx(1.5)
    assert sum(group["n"] for group in found["distance"]["groups"]) == 40
    for group in found["distance"]["groups"]:
        assert group["answer"] == pytest.approx(1.5 + 0.5 * group["truth"])
    # All true counts with a readable answer are 2: there is no line.
    assert found["count"] == {
        "slope": None,
        "intercept": None,
        "groups": [{"truth": 2, "answer": 2.4, "lower": 2, "upper": 3, "n": 5}],
    }


def test_without_such_questions_there_is_no_calibration():
    assert calibration([item("mcq", 1, 1)]) == {"distance": None, "count": None}


def test_questions_without_pictures_are_drawn_one_by_one_and_without_text_have_no_template():
    items = [item("mcq", n % 2, 1, question="", image=None, name=str(n)) for n in range(6)]
    details = describe_details(items)
    assert details["bootstrap"]["clusters"] == 6 and "question" in details["bootstrap"]["method"]
    assert "templates" not in details
    # One picture is drawn every time, whatever it is: no spread.
    details = describe_details([item("mcq", n % 2, 1, name=str(n)) for n in range(6)])
    assert details["intervals"]["S1"] == details["intervals"]["mcq"] == [50, 50]
    assert details["bootstrap"]["clusters"] == 1 and details["intervals"]["count"] is None
