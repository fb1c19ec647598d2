"""Runs whose processes are killed, and whose machine loses what was not on the disk yet, end with the same bits."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from smolrgpt_jax.checkpoint import orbax as checkpoints
from tests.training.metrics_file import read_metrics

KILLS = int(os.environ.get("KILLS", 2))  # 20 and more by hand: they take a quarter of an hour
STEPS = 10 * KILLS
pytestmark = pytest.mark.slow


def start(nursery, workdir: Path, count: int) -> list[int]:
    settings = {"steps": STEPS, "save_every": 4, "batch_rows": 2, "validation_sources": {}}
    data_settings, kept = {"row_tokens": 256, "row_pictures": 1}, {"syncs": str(workdir.parent / "synced")}
    return nursery.start(workdir, count, "tiniest", settings, data_settings, step=str(workdir.parents[1]), **kept)


def last_step(workdir: Path) -> int:
    """The last step in the metrics file, 0 before there is one."""
    path = workdir / "metrics.csv"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    number = lines[-1].split(",")[0] if len(lines) > 1 else "0"
    return int(number) if number.isdigit() else 0


def cut_power(workdir: Path, filled: bool) -> None:
    """Leaves of every file what was synced; `filled` up with zeros, as some file systems do."""
    lines = (workdir.parent / "synced").read_text().splitlines()
    synced = dict(map(int, line.split()) for line in lines)
    for path in workdir.rglob("*"):
        if path.is_file():
            about = path.stat()
            kept = min(about.st_size, synced.get(about.st_ino, 0))
            os.truncate(path, kept)
            if filled:
                os.truncate(path, about.st_size)


# What of a file is on the disk does not depend on the number of processes: two are killed once less. Of the kills of one process, the
# first cuts the power, the second fills up with zeros, as that of two does; further ones, by hand, spare the power too.
@pytest.mark.parametrize(("count", "kills"), [(1, KILLS), (2, max(1, KILLS - 1))])
def test_killed_at_random_moments_a_run_ends_with_the_same_bits(nursery, tmp_path, count, kills):
    whole, workdir, rng = tmp_path / "whole" / "run", tmp_path / "killed" / "run", np.random.default_rng(count)
    assert nursery.ask(start(nursery, whole, count)) == [0] * count
    for kill in range(kills):
        processes = start(nursery, workdir, count)
        # Past so many steps, and then a moment that may fall into a step or a save.
        end = time.monotonic() + 300
        while last_step(workdir) < (kill + 1) * (STEPS // (KILLS + 2)):
            assert time.monotonic() < end, (workdir.parent / "log0").read_text()
            time.sleep(0.002)
        for process in rng.permutation(processes):
            time.sleep(rng.uniform(0, 0.08))
            os.kill(process, signal.SIGKILL)
        statuses = nursery.ask(processes)
        assert signal.SIGKILL in statuses, "the run was faster than its killer"
        if power := (kill + count) % 3:
            cut_power(workdir, filled=power == 2)
    assert nursery.ask(start(nursery, workdir, count)) == [0] * count, (workdir.parent / "log0").read_text()
    ours, theirs = checkpoints.load_params(workdir), checkpoints.load_params(whole)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    found, expected = (read_metrics(folder / "metrics.csv") for folder in (workdir, whole))
    assert [row["step"] for row in found] == list(range(1, STEPS + 1))
    assert [row["loss"] for row in found] == [row["loss"] for row in expected]
