"""For the tests of whole runs: a mesh as small as can be, and processes that train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import pytest

from smolrgpt_jax.training import run as loop
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.test_distributed import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def one_device():
    """Runs take the first device alone: how work is spread over several is not what the module tests.

    Runs that compute the same step share it, as tracing it takes most of their time.
    """
    make_optimizer, jit_train_step, kept = loop.make_optimizer, loop.jit_train_step, {}

    def made_once(stage, trained, steps, config):
        key = repr((stage, sorted(trained), steps, config))
        if key not in kept:
            kept[key] = make_optimizer(stage, trained, steps, config)
        return kept[key]

    def jitted_once(config, optimizer, trained, *more):
        key = repr((config, sorted(trained), more)), id(optimizer)
        if key not in kept:
            kept[key] = jit_train_step(config, optimizer, trained, *more)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        devices = jax.devices()[:1]
        patch.setattr(jax, "devices", lambda *_: devices)
        patch.setattr(loop, "make_optimizer", made_once)
        patch.setattr(loop, "jit_train_step", jitted_once)
        yield


class Nursery:
    """See nursery.py. `data` is the small warehouse that its processes train on."""

    def __init__(self, folder: Path):
        self.data = folder / "data"
        config = WarehouseConfig(scenes=8, val_scenes=2, test_scenes=2, width=96, height=54, max_pallets=5)
        make_warehouse(self.data, config, workers=1)
        command = [sys.executable, str(Path(__file__).with_name("nursery.py")), str(folder / "cache")]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT, **pipes)

    def ask(self, request: Any) -> Any:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, workdir: Path, count: int, model: str, settings: dict, data_settings: dict, **more) -> list[int]:
        """Starts so many processes of one run; their ids."""
        workdir.parent.mkdir(parents=True, exist_ok=True)
        asked = {"workdir": str(workdir), "data": str(self.data), "count": count, "port": free_port(), "model": model}
        return self.ask(asked | {"settings": settings, "data_settings": data_settings} | more)


@pytest.fixture(scope="package")
def nursery(tmp_path_factory):
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait()
