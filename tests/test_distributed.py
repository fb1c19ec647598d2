"""Several real processes: they find each other, and none hangs when one is missing, killed or fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from smolrgpt_jax import distributed
from smolrgpt_jax.distributed import Processes, find_processes
from smolrgpt_jax.errors import RunError
from tests.devices import xla_flags

ROOT = Path(__file__).parents[1]
PROGRAM = """
    import sys, time
    from smolrgpt_jax import distributed

    timeout, heartbeat, steps, failing = map(int, sys.argv[1:])
    distributed.start(initialization_timeout=timeout, heartbeat_timeout=heartbeat)
    import jax, numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    value = 10.0 ** jax.process_index()
    ones = jax.make_array_from_callback((jax.device_count(),), NamedSharding(mesh, P("data")), lambda _: np.full(1, value))
    add = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, "data"), mesh=mesh, in_specs=P("data"), out_specs=P()))
    with distributed.end_on_error():
        for step in range(steps):
            print("sum", float(add(ones)[0]), flush=True)
            if jax.process_index() == failing:
                raise SystemExit("error: no such file on this host")
            time.sleep(0.1)
    print("finished", flush=True)
"""
# A job in the background of a shell starts with SIGINT ignored, and would pass that on.
HEED_SIGINT = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def launch(tmp_path):
    """Starts process `index` of two; its output goes to tmp_path/<index>."""
    (tmp_path / "program.py").write_text(textwrap.dedent(PROGRAM))
    port = free_port()
    started = []

    def start(index: int, timeout: int = 60, heartbeat: int = 5, steps: int = 10_000, failing: int = -1):
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": xla_flags(),
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(index),
        }
        arguments = map(str, (timeout, heartbeat, steps, failing))
        with (tmp_path / str(index)).open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-c", HEED_SIGINT, "program.py", *arguments],
                cwd=tmp_path,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(path: Path, text: str, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while text not in path.read_text():
        assert time.monotonic() < until, path.read_text()
        time.sleep(0.05)


def last_line(path: Path) -> str:
    return path.read_text().splitlines()[-1]


def test_processes_find_each_other_and_add_up(launch, tmp_path):
    processes = [launch(i, steps=1) for i in range(2)]
    assert [p.wait(timeout=180) for p in processes] == [0, 0]
    for i in range(2):
        text = (tmp_path / str(i)).read_text()
        assert f"process {i} of 2 (coordinator 127.0.0.1:" in text
        assert "sum 11.0" in text and "finished" in text


@pytest.mark.parametrize("index", [0, 1])
def test_a_missing_process_is_one_sentence(launch, tmp_path, index):
    alone = launch(index, timeout=2)
    assert alone.wait(timeout=180) == 1
    text = (tmp_path / str(index)).read_text()
    assert f"error: process {index} of 2 (coordinator 127.0.0.1:" in text
    assert "waited 2 seconds" in text and "started on all 2" in text and "port is open" in text
    assert "Traceback" not in text and "stack trace" not in text


@pytest.mark.parametrize(("killed", "other"), [(0, 1), (1, 0)])
def test_the_others_end_when_one_is_killed(launch, tmp_path, killed, other):
    processes = [launch(i, heartbeat=distributed.HEARTBEAT_TIMEOUT) for i in range(2)]
    for i in range(2):
        wait_for(tmp_path / str(i), "sum 11.0")
    os.kill(processes[killed].pid, signal.SIGKILL)
    assert processes[other].wait(timeout=180) not in (0, None)
    line = last_line(tmp_path / str(other))
    assert line.startswith(f"error: process {other} of 2") and "goes on from the newest checkpoint" in line
    assert "finished" not in (tmp_path / str(other)).read_text()


@pytest.mark.parametrize("heartbeat", [3, pytest.param(distributed.HEARTBEAT_TIMEOUT, marks=pytest.mark.slow)])
def test_a_silent_process_ends_the_others_within_a_minute(launch, tmp_path, heartbeat):
    processes = [launch(i, heartbeat=heartbeat) for i in range(2)]
    for i in range(2):
        wait_for(tmp_path / str(i), "sum 11.0")
    # A stopped process keeps its connections, as a host that vanished from the network does.
    os.killpg(processes[1].pid, signal.SIGSTOP)
    assert processes[0].wait(timeout=180) == 128 + signal.SIGABRT
    line = last_line(tmp_path / "0")
    assert line.startswith("error: process 0 of 2") and "another process died" in line


def test_an_error_on_one_host_ends_the_run(launch, tmp_path):
    processes = [launch(i, failing=1) for i in range(2)]
    assert [p.wait(timeout=180) != 0 for p in processes] == [True, True]
    assert last_line(tmp_path / "1") == "error: no such file on this host"
    assert last_line(tmp_path / "0").startswith("error: process 0 of 2")


def test_a_signal_reaches_the_child(launch, tmp_path):
    processes = [launch(i) for i in range(2)]
    wait_for(tmp_path / "0", "sum 11.0")
    processes[0].send_signal(signal.SIGINT)
    assert processes[0].wait(timeout=180) == 1
    assert "KeyboardInterrupt" in (tmp_path / "0").read_text()
    assert processes[1].wait(timeout=180) != 0


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([20, 19], "of 2 processes, 1 [(]from 0[)] would go on with rows 19 instead of 20$"),
        ([19, 20, 20, 18], "of 4 processes, 0, 3 [(]from 0[)] would go on with rows 19 instead of 20$"),
    ],
)
def test_processes_that_would_compute_something_else_are_named(monkeypatch, rows, message):
    monkeypatch.setattr(distributed, "gather", lambda facts: [{**facts, "rows": number} for number in rows])
    monkeypatch.setattr(distributed.time, "sleep", lambda seconds: None)
    with pytest.raises(RunError, match=message):
        distributed.check_alike({"seed": 0, "rows": 0})


def test_one_process_agrees_with_itself():
    distributed.check_alike({"rows": 20})


SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "a[1-2]", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}


@pytest.mark.parametrize(
    ("arguments", "environ", "expected"),
    [
        ({}, {}, None),
        (
            {},
            {"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            Processes("a:8476", 4, 3),
        ),
        (
            {"process_id": 2},
            {"JAX_COORDINATOR_ADDRESS": "a:99", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"},
            Processes("a:99", 4, 2),
        ),
        ({"coordinator_address": "a", "num_processes": 1, "process_id": 0}, {}, None),
        ({}, {**SLURM, "SLURM_NTASKS": "2"}, Processes()),
        ({}, {**SLURM, "SLURM_NTASKS": "1"}, None),
        ({}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),
    ],
)
def test_where_the_processes_come_from(arguments, environ, expected):
    assert find_processes(Processes(**arguments), environ) == expected


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}, r"--coordinator_address \(JAX_COORDINATOR_ADDRESS\)"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "2"}, "not one of 0 to 1"),
        ({"JAX_COORDINATOR_ADDRESS": "a", "JAX_NUM_PROCESSES": "two", "JAX_PROCESS_ID": "2"}, "whole numbers"),
    ],
)
def test_settings_that_do_not_fit(environ, message):
    with pytest.raises(ValueError, match=message):
        find_processes(environ=environ)
