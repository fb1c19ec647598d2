"""The study of batches: equal samples, rates as they are said to grow, and the batch it ends with."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import pytest

from configs import studies
from eval.studies import batch, trained
from smolrgpt_jax.training.noise import COLUMNS


def configuration(changes):
    return batch.TASK.configuration(Path("root"), studies.training("root", "start", "cpu", 3, 16), changes)


@pytest.mark.parametrize(("variant", "changes"), studies.TRAINED["batch"].items(), ids=str)
def test_every_batch_sees_as_many_samples_with_rates_as_said(variant, changes):
    usual, config = studies.training("root", "start", "cpu", 3, 16), configuration(changes)
    rows = int(variant.split()[0])
    assert config.batch_rows == rows and config.accumulation >= 2 and rows % config.accumulation == 0
    # As near to 4,800 rows as whole steps come.
    assert abs(config.steps * rows - usual.steps * usual.batch_rows) <= rows / 2
    grown = 1.0
    if "root" in variant:
        grown = math.sqrt(rows / 8)
    elif "proportion" in variant:
        grown = rows / 8
    peaks, expected = config.optimizer.peaks.to_dict(), usual.optimizer.peaks.to_dict()
    assert peaks == pytest.approx({group: rate * grown for group, rate in expected.items()})


def test_both_rules_are_tried_with_every_batch():
    tried = [configuration(changes) for changes in studies.TRAINED["batch"].values()]
    rows = [config.batch_rows for config in tried]
    assert rows == [8, 16, 32, 64, 128, 16, 32, 64, 128]
    assert len({(c.batch_rows, c.optimizer.peaks["decoder"]) for c in tried}) == 9


def run_folder(folder: Path, steps: int, square: float, noise: float) -> Path:
    """What a finished training leaves of which the study reads; the first half of its reports tells another noise."""
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "settings.json").write_text(json.dumps({"steps": steps}))
    with open(folder / "train" / "metrics.csv", "w", newline="") as file:
        told = csv.writer(file)
        told.writerow(["step", *COLUMNS])
        told.writerows([step, 1.0, 999.0] for step in range(10))
        told.writerows([10 + step, square, noise] for step in range(10))
    return folder


def test_the_largest_batch_is_the_last_before_one_loses_a_point(tmp_path, capsys):
    rule = {"batch.exponent": 0.5}
    variants = {"8 rows": {"batch.rows": 8}, **{f"{n} rows": {"batch.rows": n, **rule} for n in (16, 32, 64, 128)}}
    folders = {
        name: [
            run_folder(tmp_path / name / str(seed), 4800 // changes["batch.rows"], 2.0, 60.0 + 20 * seed)
            for seed in (0, 1)
        ]
        for name, changes in variants.items()
    }
    gains = {f"{n} rows": {"S1": (gain, None)} for n, gain in ((16, 0.4), (32, -0.9), (64, -1.0), (128, -0.2))}
    text = batch.describe(variants, folders, gains)
    assert "| 8 rows | 600 | +0.0 | 35 (30 to 40) |" in text and "| 64 rows | 75 | -1.0 | 35 (30 to 40) |" in text
    assert "32 with the exponent 0.5." in text and "Noise scale at 8 rows: 35 (30 to 40)." in text
    gains["16 rows"] = {"S1": (None, None)}
    assert "8 with the exponent 0.5." in batch.describe(variants, folders, gains)


def test_what_a_batch_changes_does_not_change_the_model_or_the_data():
    changes = studies.TRAINED["batch"]["16 rows, rates by the root"]
    assert studies.section(changes, "model") == studies.section(changes, "warehouse") == {}
    assert trained.data_folder(Path("root"), changes) == Path("root/data")
