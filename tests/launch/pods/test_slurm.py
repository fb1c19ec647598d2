"""The commands of launch.slurm, and its batch script with stand-ins for Slurm's programs."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch import slurm
from launch.pods.commands import ROOT

TRAIN = ["--config", "configs/demo.py:stage3", "--workdir", "/nfs/w"]
PYTHON = Path(sys.executable).with_name("python3")
BATCH = ROOT / "launch" / "pods" / "slurm.sbatch"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            [
                "submit",
                "--nodes",
                "2",
                "--gpus_per_node",
                "8",
                "--time",
                "24:00:00",
                *TRAIN,
                "--",
                "--config.batch_rows=16",
            ],
            "sbatch --job-name=smolrgpt --nodes=2 --ntasks-per-node=8 --gpus-per-node=8 --exclusive --requeue "
            f"--signal=B:USR1@300 --chdir={ROOT} --output=smolrgpt-%j.log --open-mode=append --time=24:00:00 {BATCH} "
            f"{PYTHON} -u -m launch.train --config=configs/demo.py:stage3 --workdir=/nfs/w --config.batch_rows=16",
        ),
        (
            ["submit", "--gpus_per_node", "1", "--time", "1:0", "--partition", "a", "--account", "b", "--name", "n"]
            + [*TRAIN, "--", "--config.steps=3"],
            "sbatch --job-name=n --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --exclusive --requeue "
            f"--signal=B:USR1@300 --chdir={ROOT} --output=n-%j.log --open-mode=append --time=1:0 --partition=a --account=b {BATCH} "
            f"{PYTHON} -u -m launch.train --config=configs/demo.py:stage3 --workdir=/nfs/w --config.steps=3",
        ),
        (["status"], "squeue --me --name=smolrgpt"),
        (["cancel", "--name", "n"], "scancel --me --name=n"),
    ],
)
def test_commands_and_dry_run(arguments, expected, recorder, capsys):
    runner = recorder()
    slurm.main(arguments, runner)
    assert [shlex.join(command) for command in runner.commands] == [expected]
    slurm.main([arguments[0], "--dry_run", *arguments[1:]])
    assert capsys.readouterr().out == expected + "\n"


SUBMIT = ["submit", "--gpus_per_node", "1", *TRAIN, "--dry_run", "--time"]


@pytest.mark.parametrize("limit", ["90", "90:30", "24:00:00", "2-0", "2-12:30", "2-12:30:00"])
def test_time_limits_as_slurm_writes_them(limit, capsys):
    slurm.main([*SUBMIT, limit])
    assert f" --time={limit} " in capsys.readouterr().out


@pytest.mark.parametrize(
    "limit", ["", "24h", "1:2:3:4", "2-", "1-2-3", "2-1:2:3:4", "unlimited", "1.5", "24:00:00 ", "\u0661"]
)
def test_other_time_limits_are_refused(limit, capsys):
    with pytest.raises(SystemExit) as end:
        slurm.main([*SUBMIT, limit])
    assert end.value.code == f"error: --time {limit} is no time limit of Slurm's: {slurm.TIMES}"
    assert capsys.readouterr().out == ""


def test_the_nodes_run_the_python_that_submits_under_one_name(tmp_path, monkeypatch):
    for name in ("python3", "python", "other"):
        (tmp_path / name).touch()
    (tmp_path / "python").unlink()
    (tmp_path / "python").symlink_to("python3")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert slurm.python() == str(tmp_path / "python3")
    # A python3 beside it that is another one has not what this one has installed.
    monkeypatch.setattr(sys, "executable", str(tmp_path / "other"))
    assert slurm.python() == str(tmp_path / "other")


@pytest.mark.parametrize("count", ["--nodes=0", "--gpus_per_node=-1"])
def test_there_is_at_least_one_gpu(count, capsys):
    with pytest.raises(SystemExit):
        slurm.main([*SUBMIT, "1", count])
    assert f"argument {count.partition('=')[0]}: " in capsys.readouterr().err


@pytest.fixture
def batch(tmp_path):
    """Runs the batch script; srun runs its command, scancel signals it, scontrol writes down what it was told."""
    programs = {
        "srun": 'shift; "$@" & echo $! > step; wait $!',
        "scancel": 'kill -TERM "$(cat step)"',
        "scontrol": 'echo "$@" > queued',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    def start(command: str) -> subprocess.Popen:
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
        return subprocess.Popen(
            ["bash", str(BATCH), "bash", "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.mark.parametrize("status", [0, 3])
def test_the_job_ends_with_the_status_of_the_training(batch, tmp_path, status):
    assert batch(f"exit {status}").wait(timeout=20) == status
    assert not (tmp_path / "queued").exists()


def test_out_of_time_the_training_saves_and_the_job_is_queued_again(batch, tmp_path):
    job = batch("trap 'sleep 0.5; touch saved; exit 1' TERM; touch running; while true; do sleep 0.1; done")
    until = time.monotonic() + 20
    while not (tmp_path / "running").exists():
        assert time.monotonic() < until
        time.sleep(0.05)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=20) == 0
    assert (tmp_path / "saved").exists()
    assert (tmp_path / "queued").read_text() == "requeue 7\n"
