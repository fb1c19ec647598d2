"""What is drawn of a training's file, as other programs write it too."""

from __future__ import annotations

import pytest

from eval.report.charts import curve, reliability_plot

ROWS = "step,loss,lr_all\n10,3.5,0.1\n20,2.5,0.05\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_curve_is_read_with_or_without_a_byte_order_mark(tmp_path, encoding, end):
    (tmp_path / "metrics.csv").write_text(ROWS, encoding=encoding, newline=end)
    found = curve("sft", tmp_path / "metrics.csv")
    assert found["losses"] == {"training": [(10, 3.5), (20, 2.5)]} and found["rates"] == {
        "all": [(10, 0.1), (20, 0.05)]
    }


def test_the_interval_of_a_bin_is_wilsons():
    """Of 8 of 10 and of 0 of 4, as Wilson's formula gives them by hand."""
    bins = [
        {"confidence": 90.0, "accuracy": 80.0, "questions": 10},
        {"confidence": 5.0, "accuracy": 0.0, "questions": 4},
    ]
    found = [(part["low"], part["high"]) for part in reliability_plot({"bins": bins})["bins"]]
    assert found == [pytest.approx((49.02, 94.33), abs=0.01), pytest.approx((0, 48.99), abs=0.01)]
