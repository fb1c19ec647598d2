from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from launch.run_config import unknown_key

ROOT = Path(__file__).parents[2]
CONFIG = ConfigDict({"steps": 1, "data": {"row_tokens": 2, "sources": {}}, "mesh": {"fsdp": 0}})


@pytest.mark.parametrize("name", ["steps", "data.row_tokens", "data.sources", "data", "mesh.fsdp"])
def test_keys_that_exist_pass(name):
    assert unknown_key(CONFIG, name) is None


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("stepz", "steps"), ("row_tokens", "data.row_tokens"), ("data.row_token", "data.row_tokens")],
)
def test_unknown_keys_get_the_nearest(name, nearest):
    assert unknown_key(CONFIG, name) == f"the configuration has no key {name!r}, the nearest is {nearest!r}"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config=configs/demo.py:stage3", "--config.batch_row=3"],
            "no key 'batch_row', the nearest is 'batch_rows'",
        ),
        (["--config", "configs/nope.py"], "--config configs/nope.py: no such file"),
        (["--config", "configs/demo.py:stage9"], "the demo has no stage 'stage9'"),
    ],
)
def test_commands_end_with_one_sentence(tmp_path, arguments, message):
    done = subprocess.run(
        [sys.executable, "-m", "launch.train", "--workdir", str(tmp_path / "run"), *arguments],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and message in done.stderr
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
