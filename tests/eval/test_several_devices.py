"""The command gives the same files on one device, on eight and in two processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import demo
from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.checkpoint.load import tokenizer_files
from smolrgpt_jax.data.chat import ChatTokenizer
from smolrgpt_jax.models.smolrgpt import init_params
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.devices import xla_flags
from tests.test_distributed import free_port
from tests.training.test_run import TINY

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A procedural warehouse and the checkpoint of a small random model."""
    folder = tmp_path_factory.mktemp("devices")
    config = WarehouseConfig(scenes=1, val_scenes=6, test_scenes=1, width=96, height=54, max_pallets=5)
    make_warehouse(folder / "data", config, workers=1)
    # Larger than at the start of a training, so that answers differ from question to question.
    params = {n: 4 * np.asarray(v) for n, v in init_params(TINY, jax.random.key(0)).items()}
    tokenizer = tokenizer_files(ChatTokenizer.load(demo.TOKENIZER))
    checkpoints.save(folder / "checkpoint", params, checkpoints.Meta(TINY, tokenizer))
    return folder


def start(folder: Path, out: str, devices: int, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "eval.warehouse", "--checkpoint", "checkpoint", "--data", "data"]
    return subprocess.Popen(
        [*command, "--out", out, "--max_new_tokens", "8", "--batch_size", "8"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags(devices),
            "JAX_DEFAULT_MATMUL_PRECISION": "highest",
            **environment,
        },
    )


def test_predictions_do_not_depend_on_devices_and_processes(folder):
    assert start(folder, "one", 1).wait() == 0
    assert start(folder, "eight", 8).wait() == 0
    together = {"JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}", "JAX_NUM_PROCESSES": "2"}
    # The second one as on a host with a disk of its own.
    outs = ("two", "elsewhere/two")
    processes = [start(folder, out, 1, **together, JAX_PROCESS_ID=str(index)) for index, out in enumerate(outs)]
    assert [process.wait() for process in processes] == [0, 0]
    expected = {name: (folder / "one" / name).read_bytes() for name in ("predictions.json", "submission.json")}
    assert len({item["answer"] for item in json.loads(expected["predictions.json"])}) > 5
    for out in ("eight", "two"):
        assert {name: (folder / out / name).read_bytes() for name in expected} == expected
        assert (folder / out / "report.html").exists()
    assert not list((folder / "elsewhere").iterdir())
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "data", "eight", "elsewhere", "one", "two"]
