"""The parity report's command at its smallest size."""

from __future__ import annotations

import contextlib
import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import parity
from smolrgpt_jax import load


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1.0001])
def test_one_wrong_parameter_fails_the_lines_that_need_it_and_no_others(tmp_path, capsys, monkeypatch, factor):
    """One norm's scale off by a ten-thousandth is enough, and nothing fails without."""

    def changed(folder):
        model = load(folder)
        name = "decoder/blocks/norm2/scale"
        scale = model.params[name] * np.float32(factor)
        return dataclasses.replace(model, params=model.params | {name: scale})

    monkeypatch.setattr(parity, "load", changed)
    out = tmp_path / "parity.md"
    with contextlib.nullcontext() if factor == 1 else pytest.raises(SystemExit, match="1"):
        parity.main(["--size", "tiny", "--out", str(out)])
    report = out.read_text()
    assert report.strip() == capsys.readouterr().out.strip()
    assert ("Every tolerance is met" if factor == 1 else "A tolerance is missed") in report
    assert "Greedy tokens: 512 of 8 x 64 identical" in report
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in report.splitlines()
        if "e-0" in line and "|" in line
    ]
    passed = {name for name, *_, verdict in lines if verdict == "pass"}
    failed = {name for name, *_, verdict in lines if "FAIL" in verdict}
    assert {"encoder", "head", "RGB refiner", "region_depth", "losses of the questions"} <= passed
    assert len(passed | failed) == 27
    wrong = set() if factor == 1 else {"decoder", "hidden", "logits"}
    assert {name for name in failed if "gradients" not in name} == wrong
    assert len(failed) == 3 * len(wrong), "every gradient passes through the decoder"


def test_a_folder_without_checkpoint_is_an_error(tmp_path):
    with pytest.raises(SystemExit, match="error: .*config.json: no such file"):
        parity.main(["--folder", str(tmp_path)])


def test_different_answers_are_reported():
    tokens = np.zeros((2, 4), np.int32)
    other = tokens.copy()
    other[1, 2] = 7
    report = parity.describe_greedy(tokens, other, np.full((2, 4), 0.25, np.float32), 1e-6)
    assert "7 of 2 x 4 identical" in report
    assert "Question 1 first differs at token 2, where the lead is 0.25." in report
