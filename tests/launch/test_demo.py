"""The demo from warehouse to report."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from configs import demo as demo_config
from configs import demo_backbone, demo_language, studies
from eval.scoring.in_training import WAREHOUSE_SCORES
from eval.scoring.results import describe_metrics
from launch import demo
from smolrgpt_jax import flops
from smolrgpt_jax.warehouse.parameters import WarehouseConfig

FEW = {**demo_config.DEMO_WAREHOUSE, "scenes": 12, "val_scenes": 2, "test_scenes": 4, "width": 96, "height": 54}


@pytest.fixture
def begun(monkeypatch) -> list[str]:
    """The stages whose training has begun; the second is stopped once. The pages' own demo trains (tests/test_pasted_commands.py)."""
    names = []

    def train_nothing(settings, workdir, scores):
        assert settings["seed"] == 1 and scores is WAREHOUSE_SCORES
        names.append(workdir.name)
        assert settings["steps"] == demo_config.get_config(workdir.name).steps * (3 if workdir.name == "stage3" else 1)
        if stopped := names == ["stage1", "stage2"]:
            return {"stopped": stopped}
        shutil.copytree(settings["init_from"], workdir, dirs_exist_ok=True)
        (workdir / "metrics.csv").write_text("step,loss,validation_loss\n1,2.0,\n2,1.0,1.5\n")
        return {"stopped": stopped}

    monkeypatch.setattr("smolrgpt_jax.training.run.train", train_nothing)
    monkeypatch.setattr(demo_config, "DEMO_WAREHOUSE", FEW)
    monkeypatch.setattr(demo_config, "LONGEST_ANSWER", 8)
    monkeypatch.setattr(demo, "REAL", Path("nowhere"))
    return names


@pytest.mark.slow
def test_the_demo_makes_table_and_report_and_goes_on_where_it_was(begun, tmp_path, capsys):
    workdir, stages = tmp_path / "demo", [*demo_config.STAGES]
    with pytest.raises(SystemExit, match="stopped by a signal; the same command goes on from here"):
        demo.run(workdir, seed=1, times=3)
    assert begun == stages[:2] and not (workdir / "report.html").exists()
    demo.run(workdir, seed=1, times=3)
    assert begun[2:] == stages
    made = json.loads((workdir / "data" / "metadata.json").read_text())["parameters"]
    assert made["scenes"] == 3 * FEW["scenes"] and made["further_wordings"] == FEW["further_wordings"] > 0
    metrics = json.loads((workdir / "metrics.json").read_text())
    assert {"S1", "left_right", "count", "mcq", "distance", "blind_S1"} <= set(metrics)
    assert metrics["questions"] == len(json.loads((workdir / "data" / "test_answers.json").read_text()))
    printed = capsys.readouterr().out
    assert "blind" in printed and str(workdir / "report.html") in printed
    report = (workdir / "report.html").read_text()
    assert all(stage in report for stage in stages)
    # A third start answers nothing and says the same.
    times = {name: (workdir / name).stat().st_mtime_ns for name in demo.RESULTS}
    demo.run(workdir, seed=1, times=3)
    assert {name: (workdir / name).stat().st_mtime_ns for name in demo.RESULTS} == times
    assert describe_metrics(metrics) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("speed", "times", "line"),
    [
        (480.4, 1, "480 GFLOP/s in a float32 product: about 6 minutes"),
        (200.0, 1, "200 GFLOP/s in a float32 product: about 10 minutes"),
        (200.0, 4, "200 GFLOP/s in a float32 product: about 32 minutes"),
    ],
)
def test_it_says_how_long_it_will_take_before_anything_is_done(monkeypatch, tmp_path, capsys, speed, times, line):
    def interrupted(data, config):
        raise KeyboardInterrupt

    monkeypatch.setattr(flops, "product_speed", lambda: speed)
    monkeypatch.setattr(demo, "ensure_warehouse", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, seed=0, times=times)
    assert line in capsys.readouterr().out.splitlines()
    # A demo that goes on takes less.
    (tmp_path / "data").mkdir()
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, seed=0, times=times)
    assert "minutes" not in capsys.readouterr().out


def test_a_language_model_has_no_longer_demo(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["demo", "--language=llama", "--times=2", f"--workdir={tmp_path / 'new'}"])
    with pytest.raises(SystemExit, match="^error: --times is of the small demo, not of --language$"):
        demo.main()
    assert not (tmp_path / "new").exists()


def test_the_demo_alone_asks_in_further_wordings():
    """What is compared on other pages was learned from the published ones."""
    assert WarehouseConfig(**demo_config.DEMO_WAREHOUSE).further_wordings == pytest.approx(2 / 3, abs=0.01)
    others = [studies.trained_warehouse("cpu", 0, {}), demo_backbone.warehouse("sharpen"), demo_language.WAREHOUSE]
    assert [WarehouseConfig(**other).further_wordings for other in others] == [0.0] * 3


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
