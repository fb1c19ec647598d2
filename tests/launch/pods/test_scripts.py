"""The shell scripts: shellcheck finds nothing, and the one of the TPU hosts does what launch.tpu_pod expects."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.pods.commands import ROOT
from launch.pods.queued_resource import STATUS

SCRIPTS = sorted([*ROOT.glob("launch/pods/*.sh"), *ROOT.glob("launch/pods/*.sbatch")])


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck(script):
    beside_python = str(Path(sys.executable).parent)
    program = shutil.which("shellcheck", path=beside_python) or shutil.which("shellcheck")
    assert program, "shellcheck is missing: pip install -r requirements-test.txt"
    done = subprocess.run([program, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_both_kinds_of_script_are_checked():
    assert {path.suffix for path in SCRIPTS} == {".sh", ".sbatch"}


@pytest.fixture
def worker(tmp_path):
    """A host with a copy of the script; its Python is a program of the test."""
    (tmp_path / "launch" / "pods").mkdir(parents=True)
    shutil.copy(ROOT / "launch" / "pods" / "tpu_worker.sh", tmp_path / "launch" / "pods")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/bash\necho "$@"\n. ./what\n')
    python.chmod(0o755)

    def call(*arguments: str) -> str:
        command = ["bash", str(tmp_path / "launch" / "pods" / "tpu_worker.sh"), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, cwd="/", timeout=20).stdout

    yield call
    call("stop")


def wait_for(worker, answer: str) -> None:
    until = time.monotonic() + 20
    while worker("status").strip() != answer:
        assert time.monotonic() < until, worker("status")
        time.sleep(0.05)


@pytest.mark.parametrize("status", [0, 7])
def test_a_training_that_ends(worker, tmp_path, status):
    (tmp_path / "what").write_text(f"exit {status}\n")
    assert STATUS.findall(worker("status")) == ["none"]
    assert "started" in worker("start", "--config=c", "--config.tokenizer=a b")
    wait_for(worker, f"ended {status}")
    assert STATUS.findall(worker("status")) == [f"ended {status}"]
    assert (tmp_path / "run.log").read_text() == "-u -m launch.train --config=c --config.tokenizer=a b\n"


def test_a_training_that_runs_is_not_started_twice_and_can_be_stopped(worker, tmp_path):
    (tmp_path / "what").write_text("trap 'exit 1' TERM\nwhile true; do sleep 0.1; done\n")
    worker("start", "--config=c")
    assert STATUS.findall(worker("status")) == ["running"]
    assert "already running" in worker("start", "--config=c")
    assert "asked to save" in worker("stop")
    wait_for(worker, "ended 1")
    assert len((tmp_path / "run.log").read_text().splitlines()) == 1
    # Started again, the log goes on.
    (tmp_path / "what").write_text("exit 0\n")
    worker("start", "--config=c")
    wait_for(worker, "ended 0")
    assert len((tmp_path / "run.log").read_text().splitlines()) == 2


def test_a_number_of_another_program_is_not_a_training(worker, tmp_path):
    (tmp_path / "run.pid").write_text("1\n")
    assert worker("status") == "none\n"


def test_without_a_verb_the_script_says_what_it_can(worker, tmp_path):
    script = str(tmp_path / "launch" / "pods" / "tpu_worker.sh")
    done = subprocess.run(["bash", script], capture_output=True, text=True)
    assert done.returncode == 2
    assert re.findall(r"tpu_worker\.sh (\w+)", done.stderr) == ["install", "start", "status", "stop", "logs"]
