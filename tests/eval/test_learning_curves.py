"""Learning curves over seeds, from files like those that a training writes."""

from __future__ import annotations

import csv
import json
import sys
from xml.etree import ElementTree

import numpy as np
import pytest

from eval import learning_curves


def write_run(folder, columns):
    """A metrics.csv with the given {score: {step: value}} and steps without a validation between them."""
    folder.mkdir()
    with open(folder / "metrics.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["step", "loss", *columns])
        writer.writeheader()
        for step in range(10, 41, 10):
            row = {score: values[step] for score, values in columns.items() if step in values}
            writer.writerow({"step": step, "loss": 1 / step, **row})
    return folder


@pytest.fixture
def runs(tmp_path):
    values = ((30.0, 50.0), (36.0, 52.0), (33.0, 60.0))
    return [
        write_run(tmp_path / f"run{i}", {"S1": {20: a, 40: b}, "left_right": {20: 90.0, 40: 100.0}, "count": {}})
        for i, (a, b) in enumerate(values)
    ]


def test_means_and_intervals_over_runs(runs):
    curves = learning_curves.read_curves(runs)
    assert curves == {"S1": {20: [30, 36, 33], 40: [50, 52, 60]}, "left_right": {20: [90] * 3, 40: [100] * 3}}
    found = learning_curves.by_step(curves)
    mean, (low, high) = found[20]["S1"]
    # Three runs: 4.303 (t, two degrees of freedom) times the standard error.
    assert mean == 33 and high - mean == mean - low == pytest.approx(4.303 * 3 / np.sqrt(3), rel=1e-3)
    mean, (low, high) = found[40]["S1"]
    assert mean == 54 and high - mean == pytest.approx(4.303 * np.sqrt(28 / 3), rel=1e-3)
    assert found[40]["left_right"] == (100, (100, 100))


def test_a_score_that_was_not_measured_at_a_step_has_a_gap():
    found = learning_curves.by_step({"S1": {20: [1.0, 2.0], 40: [3.0, 4.0]}, "count": {40: [99.0, 90.0]}})
    assert found[20]["count"] == (None, None)
    mean, (low, high) = found[40]["count"]
    assert (mean, high) == (94.5, 100) and low >= 0


def test_files(runs, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["learning_curves", *map(str, runs), "--out", str(out)])
    learning_curves.main()
    assert "| 40 | 54.0 (" in capsys.readouterr().out
    assert "| step | S1 | left_right |" in (out / "table.md").read_text()
    found = json.loads((out / "curves.json").read_text())
    assert found["scores"]["S1"] == {"steps": [20, 40], "values": [[30, 36, 33], [50, 52, 60]]}
    assert str(runs[0]) in found["command"]
    texts = {e.text for e in ElementTree.parse(out / "plot.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"step", "S1 54.0", "left_right 100.0", "100 %"} <= texts


def test_without_matplotlib_one_sentence_says_what_to_install(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(SystemExit, match=r"pip install -e '\.\[plots\]'"):
        learning_curves.main([*map(str, runs), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_runs_that_cannot_be_compared(runs, tmp_path, capsys):
    other = write_run(tmp_path / "other", {"S1": {10: 1.0}})
    plain = write_run(tmp_path / "plain", {})
    write_run(tmp_path / "plain2", {})
    broken = write_run(tmp_path / "broken", {"S1": {20: "high", 40: 2}})
    for folders, message in (
        (runs[:1], "at least two runs"),
        ([runs[0], other], f"{other} and {runs[0]} measured S1 at different steps"),
        ([plain, tmp_path / "plain2"], "no scores, was validation_answers set"),
        ([runs[0], runs[0]], "named twice"),
        ([broken, runs[0]], "S1 is 'high', not a number"),
        ([runs[0], tmp_path / "none"], "metrics.csv"),
    ):
        with pytest.raises(SystemExit, match=message):
            learning_curves.main([*map(str, folders), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_byte_order_mark_is_no_part_of_the_first_column(runs):
    curves = learning_curves.read_curves(runs)
    for run in runs:
        rows = (run / "metrics.csv").read_text(encoding="utf-8")
        (run / "metrics.csv").write_text(rows, encoding="utf-8-sig")
    assert learning_curves.read_curves(runs) == curves
