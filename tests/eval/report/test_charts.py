"""What is drawn of a training's file, as other programs write it too."""

from __future__ import annotations

import pytest

from eval.report.charts import curve

ROWS = "step,loss,lr_all\n10,3.5,0.1\n20,2.5,0.05\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_curve_is_read_with_or_without_a_byte_order_mark(tmp_path, encoding, end):
    (tmp_path / "metrics.csv").write_text(ROWS, encoding=encoding, newline=end)
    found = curve("sft", tmp_path / "metrics.csv")
    assert found["losses"] == {"training": [(10, 3.5), (20, 2.5)]} and found["rates"] == {
        "all": [(10, 0.1), (20, 0.05)]
    }
