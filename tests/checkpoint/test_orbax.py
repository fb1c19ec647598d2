"""Saves that fail leave the checkpoints before them, and are reported."""

from __future__ import annotations

import resource
import shutil

import jax
import numpy as np
import pytest

from smolrgpt_jax.checkpoint import orbax as checkpoints
from smolrgpt_jax.config import PRESETS
from smolrgpt_jax.errors import CheckpointError
from smolrgpt_jax.training import run as loop
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.training.test_run import TINY, run_config


@pytest.fixture(autouse=True)
def tiny_preset_on_one_device(monkeypatch):
    devices = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: devices)
    monkeypatch.setitem(PRESETS, "tiny", TINY)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints") / "data"
    config = WarehouseConfig(scenes=6, val_scenes=1, test_scenes=1, width=96, height=54, max_pallets=5)
    make_warehouse(folder, config, workers=1)
    return folder


@pytest.fixture
def small_files():
    """A function after which no file of this process can grow past 8 KiB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("steps", [4, 6], ids=["in the last save", "in a save before the last"])
def test_a_full_disk_leaves_the_last_good_checkpoint(data, tmp_path, monkeypatch, small_files, capsys, steps):
    # capsys keeps what is printed in memory: the file that pytest captures into otherwise may not grow either.
    save, limits = checkpoints.TrainingCheckpoints.save, resource.getrlimit(resource.RLIMIT_FSIZE)

    def save_on_a_full_disk(self, step, *arguments, **named):
        if step == 4:
            self.manager.wait_until_finished()
            small_files()
        save(self, step, *arguments, **named)

    run = run_config(data, steps=steps, save_every=2, validation_sources={})
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.TrainingCheckpoints, "save", save_on_a_full_disk)
        with pytest.raises(CheckpointError, match="could not be written, the ones before it are kept") as error:
            loop.train(run, tmp_path / "run")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value) and str(tmp_path / "run") in str(error.value)
    assert checkpoints.find_checkpoint(tmp_path / "run").name == "2"
    # As a new process finds it: in this one, writes of the failed save go on for some tenths of a second, each under a name that
    # ends in ".__lock" and vanishes with the rename.
    shutil.copytree(tmp_path / "run", tmp_path / "again", ignore=shutil.ignore_patterns("*.__lock"))
    assert loop.train(run, tmp_path / "again")["step"] == steps
    loop.train(run, tmp_path / "whole")
    ours, theirs = (checkpoints.load_params(tmp_path / name) for name in ("again", "whole"))
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    left = [path.name for path in (tmp_path / "again" / "checkpoints").iterdir()]
    assert sorted(left) == sorted(str(step) for step in (steps - 2, steps))
