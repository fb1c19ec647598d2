"""What launch.train says: what it does, in a few lines; nothing of what others do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.devices import xla_flags

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_run_says_little_and_nothing_of_orbax(tmp_path):
    config = WarehouseConfig(scenes=8, val_scenes=1, test_scenes=1, width=96, height=54, max_pallets=4)
    make_warehouse(tmp_path / "data", config, workers=1)
    settings = {"init_from": "configs/backbone", "data.sources.warehouse.root": tmp_path / "data", "batch_rows": 2}
    settings |= {
        "validation_sources.warehouse.root": tmp_path / "data",
        "validation_answers": 0,
        "steps": 10,
        "epochs": 20,
    }
    settings |= {
        "model.compute_dtype": "float32",
        "data.region_names": True,
        "data.row_tokens": 352,
        "save_every": 1,
        "log_every": 1,
        "accumulation": 2,
    }
    command = [sys.executable, "-m", "launch.train", "--config=configs/stage3_sft.py", f"--workdir={tmp_path}/run"]
    done = subprocess.run(
        [*command, *(f"--config.{name}={value}" for name, value in settings.items())],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": xla_flags()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    said, *_, last, noise = done.stdout.splitlines()
    assert said.startswith("stage sft: 10 steps") and last.startswith("step 10 of 10, loss ")
    assert re.fullmatch(r"gradient noise scale: (\S+) rows; the batch has 2", noise)
    assert len(done.stdout.splitlines()) < 9
    assert f"all settings: {tmp_path}/run/settings.json" in done.stdout
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["steps"] == 10
    bars = [part for part in done.stderr.replace("\n", "\r").split("\r") if part.strip()]
    assert bars and all(part.startswith("sft: ") for part in bars), done.stderr
