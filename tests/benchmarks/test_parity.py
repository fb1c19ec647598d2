"""The parity report's command at its smallest size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

pytest.importorskip("torch")

from benchmarks import parity
from smolrgpt_jax import load


def test_tiny_model_meets_every_tolerance(tmp_path, capsys):
    out = tmp_path / "parity.md"
    parity.main(["--size", "tiny", "--out", str(out)])
    report = out.read_text()
    assert report.strip() == capsys.readouterr().out.strip()
    assert "Greedy tokens: 512 of 8 x 64 identical" in report
    assert "FAIL" not in report
    names = [line.split("|")[1].strip() for line in report.splitlines() if line.startswith("| ")]
    assert {"encoder", "decoder", "head", "logits", "region_depth", "losses of the questions"} <= set(names)


@pytest.mark.slow
def test_a_wrong_model_fails(tmp_path, capsys, monkeypatch):
    """One norm's scale off by a ten-thousandth is enough."""

    def changed(folder):
        model = load(folder)
        name = "decoder/blocks/norm2/scale"
        scale = model.params[name] * np.float32(1.0001)
        return dataclasses.replace(model, params=model.params | {name: scale})

    monkeypatch.setattr(parity, "load", changed)
    monkeypatch.setattr(parity, "NEW_TOKENS", 4)
    with pytest.raises(SystemExit) as stop:
        parity.main(["--size", "tiny"])
    assert stop.value.code == 1
    assert "A tolerance is missed" in capsys.readouterr().out


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
