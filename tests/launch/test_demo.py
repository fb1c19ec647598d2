"""The demo from warehouse to report, a few steps per stage."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from configs import demo as demo_config
from launch import demo
from smolrgpt_jax import flops

FEW = {**demo_config.WAREHOUSE, "scenes": 12, "val_scenes": 2, "test_scenes": 4, "width": 96, "height": 54}


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(demo_config, "WAREHOUSE", FEW)
    # A model of three steps rarely ends its answers by itself.
    monkeypatch.setattr(demo_config, "LONGEST_ANSWER", 8)
    # Asked in the pages' own demo (tests/test_pasted_commands.py).
    monkeypatch.setattr(demo, "REAL", Path("nowhere"))
    whole = demo_config.get_config

    def few_steps(stage, root):
        config = whole(stage, root)
        config.steps = 3
        config.batch_rows = 8
        config.validation_rows = 8
        config.validation_answer_tokens = 8
        return config

    monkeypatch.setattr(demo_config, "get_config", few_steps)
    return few_steps


@pytest.mark.slow
def test_the_demo_makes_table_and_report_and_goes_on_where_it_was(short, monkeypatch, tmp_path, capsys):
    workdir = tmp_path / "demo"

    # Stopped after stage 1: started again, only what is missing is done.
    def stop_at_stage2(stage, root):
        if stage == "stage2":
            raise SystemExit("stopped")
        return short(stage, root)

    with monkeypatch.context() as patch:
        patch.setattr(demo_config, "get_config", stop_at_stage2)
        with pytest.raises(SystemExit):
            demo.run(workdir, seed=1)
    first = (workdir / "stage1" / "metrics.csv").read_bytes()
    demo.run(workdir, seed=1)
    assert (workdir / "stage1" / "metrics.csv").read_bytes() == first
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert {"S1", "left_right", "count", "mcq", "distance", "blind_S1"} <= set(metrics)
    assert metrics["questions"] == len(json.loads((workdir / "data" / "test_answers.json").read_text()))
    printed = capsys.readouterr().out
    assert "blind" in printed and str(workdir / "report.html") in printed
    report = (workdir / "report.html").read_text()
    assert all(stage in report for stage in demo_config.STAGES)
    # A third start trains nothing and says the same.
    demo.run(workdir, seed=1)
    assert json.loads((workdir / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize(
    ("speed", "line"),
    [
        (480.4, "480 GFLOP/s in a float32 product: about 6 minutes"),
        (200.0, "200 GFLOP/s in a float32 product: about 10 minutes"),
    ],
)
def test_it_says_how_long_it_will_take_before_anything_is_done(monkeypatch, tmp_path, capsys, speed, line):
    def interrupted(data, config):
        raise KeyboardInterrupt

    monkeypatch.setattr(flops, "product_speed", lambda: speed)
    monkeypatch.setattr(demo, "ensure_warehouse", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, seed=0)
    assert line in capsys.readouterr().out.splitlines()
    # A demo that goes on takes less.
    (tmp_path / "data").mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, seed=0)
    assert "minutes" not in capsys.readouterr().out


@pytest.mark.parametrize("stage", demo_config.STAGES)
def test_every_stage_has_a_configuration(stage):
    config = demo_config.get_config(stage)
    assert config.steps > 0 and config.data.sources


def test_an_unknown_stage_is_named():
    with pytest.raises(ValueError, match="no stage 'stage9'"):
        demo_config.get_config("stage9")


def test_the_shipped_tokenizer_fits_the_preset():
    from smolrgpt_jax.config import PRESETS
    from smolrgpt_jax.data.chat import ChatTokenizer

    assert ChatTokenizer.load(demo_config.TOKENIZER).vocab_size == PRESETS["demo"].decoder.vocab_size
