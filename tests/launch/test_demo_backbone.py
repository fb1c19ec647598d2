"""The shipped backbone against the configuration that describes it."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from configs import demo, demo_backbone
from launch import demo_backbone as command
from smolrgpt_jax.checkpoint.torch import read_folder
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.warehouse.parameters import WarehouseConfig

SHIPPED = Path(__file__).parents[2] / demo.BACKBONE
LARGEST = 8 * 2**20  # bytes


@pytest.fixture(scope="module")
def log():
    with open(SHIPPED / command.LOG, newline="") as file:
        return list(csv.DictReader(file))


def test_the_shipped_weights_are_those_of_the_preset():
    config, params, _ = read_folder(SHIPPED)
    preset = PRESETS["demo"]
    # How weights are drawn is no part of a PyTorch folder.
    drawn = {name: getattr(preset.decoder, name) for name in ("embedding_stddev", "residual_init_scale")}
    assert (config.vision, dataclasses.replace(config.decoder, **drawn)) == (preset.vision, preset.decoder)
    expected = abstract_params(preset)
    assert set(params) == set(expected)
    for name, array in params.items():
        assert array.shape == expected[name].shape and array.dtype == "bfloat16", name
        assert np.isfinite(np.asarray(array, np.float32)).all()
    assert (SHIPPED / command.WEIGHTS).stat().st_size <= LARGEST


def test_the_card_has_the_fingerprint_and_is_the_one_the_command_writes():
    digest = hashlib.sha256((SHIPPED / command.WEIGHTS).read_bytes()).hexdigest()
    card = (SHIPPED / command.CARD).read_text()
    assert digest in card
    assert card == command.model_card(SHIPPED)


def test_the_log_holds_every_phase_to_its_last_step(log):
    for phase in demo_backbone.PHASES:
        steps = [int(row["step"]) for row in log if row["phase"] == phase]
        assert steps == sorted(set(steps)) and steps[-1] == demo_backbone.PHASES[phase].steps


def test_the_tokenizer_is_the_demos():
    assert (SHIPPED / "tokenizer.json").read_bytes() == (Path(demo.TOKENIZER) / "tokenizer.json").read_bytes()


def test_it_says_how_long_its_worked_answers_are():
    assert ChatTokenizer.load(SHIPPED).format.answer_tokens == demo.LONGEST_ANSWER
    last = demo_backbone.get_config(list(demo_backbone.PHASES)[-1])
    assert last.validation_answer_tokens == demo.LONGEST_ANSWER


@pytest.mark.parametrize("phase", demo_backbone.PHASES)
def test_every_phase_has_a_configuration_and_scenes_of_its_own(phase):
    config = demo_backbone.get_config(phase)
    assert config.steps == demo_backbone.PHASES[phase].steps and "regions" in config.data.sources
    assert WarehouseConfig(**demo_backbone.warehouse(phase)).seed == demo_backbone.PHASES[phase].seed
    assert len({phase.seed for phase in demo_backbone.PHASES.values()}) == len(demo_backbone.PHASES)
    assert "questions" not in config.data.sources  # captions only


def test_an_unknown_phase_is_named():
    with pytest.raises(ValueError, match="no phase 'sea'"):
        demo_backbone.get_config("sea")


def test_an_existing_folder_stops_the_command_before_any_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["demo_backbone", "--workdir", str(tmp_path / "work"), "--out", str(tmp_path)])
    with pytest.raises(SystemExit, match="exists already"):
        command.main()
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
@pytest.mark.skipif("RETRAIN" not in os.environ, reason="makes 5,000 scenes for twenty steps: RETRAIN=1, by hand")
def test_a_short_retraining_follows_the_logs_first_steps(tmp_path, log):
    from smolrgpt_jax.training.run import train
    from smolrgpt_jax.warehouse.write import make_warehouse

    make_warehouse(tmp_path / "see_data", WarehouseConfig(**demo_backbone.warehouse("see")))
    config = demo_backbone.get_config("see", str(tmp_path))
    config.stop_epochs = 0.006  # of 37,798 rows in steps of 8: 29 steps
    train(config.to_dict(), tmp_path / "see")
    with open(tmp_path / "see" / "metrics.csv", newline="") as file:
        again = {row["step"]: float(row["loss"]) for row in csv.DictReader(file)}
    logged = {row["step"]: float(row["loss"]) for row in log if row["phase"] == "see"}
    assert {"10", "20"} <= set(again)
    for step in ("10", "20"):
        # Sums run in another order on another machine, and every step enlarges the difference.
        assert again[step] == pytest.approx(logged[step], rel=0.01)
