"""What a study writes: intervals over seeds, paired differences, table and plot."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy import stats

from eval.studies import findings as results

CATEGORIES = ("left_right", "count", "mcq", "distance")


def runs(*values, **others):
    return [dict.fromkeys(("S1", *CATEGORIES), value) | others for value in values]


def test_scores_over_seeds():
    found = results.over_seeds(runs(40, 50, distance=None))
    assert found["distance"] == (None, None)
    mean, (low, high) = found["S1"]
    assert mean == 45 and low == 0 and high == 100  # 12.7 standard errors for two runs
    assert results.over_seeds(runs(40))["count"] == (40, None)


def test_an_error_can_be_more_than_100_percent():
    mean, (low, high) = results.over_seeds([{"height error": 130.0}, {"height error": 150.0}])["height error"]
    assert mean == 140 and low > 0 and high == pytest.approx(140 + stats.t.ppf(0.975, 1) * 10)


def test_differences_are_those_of_each_seed():
    """Seeds that differ much from each other say nothing against a variant that gains with each of them."""
    gains = results.differences_over_seeds(runs(40, 60, 80), runs(42, 63, 82, distance=None))
    assert gains["distance"] == (None, None)
    mean, (low, high) = gains["S1"]
    half = stats.t.ppf(0.975, 2) * np.std([2, 3, 2], ddof=1) / np.sqrt(3)
    assert mean == pytest.approx(7 / 3) and (low, high) == pytest.approx((mean - half, mean + half))
    assert low > 0
    losses = results.differences_over_seeds(runs(42, 63, 82), runs(40, 60, 80))
    assert losses["S1"][1] == pytest.approx((-high, -low))


def write_run(folder, rights, truth="left"):
    folder.mkdir()
    other = {"left": "right", "right": "left"}[truth]
    items = [
        {
            "id": str(i),
            "image": f"{i // 2}.png",
            "category": "left_right",
            "normalized_answer": truth if right else other,
            "truth": truth,
        }
        for i, right in enumerate(rights)
    ]
    (folder / "predictions.json").write_text(json.dumps(items), encoding="utf-8")
    return folder


def test_differences_on_the_same_questions_are_paired(tmp_path):
    first = write_run(tmp_path / "first", [True, False] * 20)
    same = write_run(tmp_path / "same", [True, False] * 20, truth="right")
    better = write_run(tmp_path / "better", [True, True] + [True, False] * 19)
    found = results.paired_differences(first, same)
    assert found["left_right"] == found["S1"] == (0, (0, 0))  # whatever the truths are
    assert found["count"] == (None, None)
    value, (low, high) = results.paired_differences(first, better)["left_right"]
    assert value == pytest.approx(2.5) and low == 0 and 2.5 < high <= 12.5


def test_means_of_values_have_intervals_over_pictures():
    items = [(str(i // 2), "width_data", float(i % 4 < 2)) for i in range(80)]
    found = results.value_intervals(items, {"width_data": "width right", "height_data": "height right"})
    value, (low, high) = found["width right"]
    # Twenty right and twenty wrong pictures of two questions each; as eighty questions the interval would be 1.4 times narrower.
    assert value == 50 and low == pytest.approx(50 - 15.5, abs=2) and high == pytest.approx(50 + 15.5, abs=2)
    assert found["height right"] == (None, None)
    assert results.value_intervals([], {"width_data": "width right"}) == {"width right": (None, None)}


def test_table_and_plot_show_values_intervals_and_differences(tmp_path):
    found = {
        "as published": {"width right": (60.0, (50.0, 70.0)), "width error": (140.0, (120.0, 160.0))},
        "other": {"width right": (64.0, None), "width error": (None, None)},
    }
    gains = {"other": {"width right": (4.0, (-1.0, 9.0)), "width error": (None, None)}}
    results.write_study(tmp_path / "out", found, gains, study="sizes")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "| as published | 60.0 (50.0 to 70.0) | 140.0 (120.0 to 160.0) |" in text
    assert "| points more than as published | width right | width error |" in text
    assert "| other | +4.0 (-1.0 to +9.0) | - |" in text
    written = json.loads((tmp_path / "out" / "study.json").read_text())
    assert written["differences"]["other"]["width right"] == {"value": 4.0, "interval": [-1.0, 9.0]}
    drawing = ElementTree.parse(tmp_path / "out" / "plot.svg").getroot()
    assert {"60", "64", "140", "as published"} <= {e.text for e in drawing.iter("{http://www.w3.org/2000/svg}text")}
