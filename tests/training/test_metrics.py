from __future__ import annotations

import os
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from smolrgpt_jax.errors import RunError
from smolrgpt_jax.training import metrics
from smolrgpt_jax.training.metrics import PROFILE, SPEED, MetricsWriter, Speed, StepsTrace, counts
from tests.training.metrics_file import read_metrics


@pytest.mark.parametrize(
    ("left", "damaged"),
    [(b"", 0), (b"3,0.2", 1), (b"3,0.25", 1), (b"\0" * 40, 1), (b"3,\0\0\0\r\n", 1), (b"3\r\n4,1,2\r\nx,1\r\n", 3)],
)
def test_what_a_lost_machine_left_of_a_row_is_dropped_and_told(tmp_path, capsys, left, damaged):
    writer = MetricsWriter(tmp_path, ["loss"])
    for step in (1, 2):
        writer.write(step, {"loss": step / 4})
    writer.close()
    with open(tmp_path / "metrics.csv", "ab") as file:
        file.write(left)
    writer = MetricsWriter(tmp_path, ["loss"], resumed_step=2)
    writer.write(3, {"loss": 0.75})
    writer.close()
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.csv")] == [0.25, 0.5, 0.75]
    assert (f"left out {damaged} damaged row(s)" in capsys.readouterr().out) == bool(damaged)


@pytest.mark.parametrize("header", [b"", b"\0" * 30, b"\0\r\n1,2\r\n"])
def test_a_file_without_its_header_is_begun_anew(tmp_path, header):
    (tmp_path / "metrics.csv").write_bytes(header)
    MetricsWriter(tmp_path, ["loss"], resumed_step=4).close()
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n"


def test_a_file_that_a_spreadsheet_saved_goes_on(tmp_path, capsys):
    (tmp_path / "metrics.csv").write_bytes("\ufeffstep,loss\r\n1,0.5\r\n".encode())
    MetricsWriter(tmp_path, ["loss"], resumed_step=1).close()
    assert read_metrics(tmp_path / "metrics.csv") == [{"step": 1, "loss": 0.5}]
    assert capsys.readouterr().out == ""


def test_rows_and_events_are_on_the_disk_once_they_are_written(tmp_path, monkeypatch):
    fsync, sizes = os.fsync, {}

    def fsync_and_note(file):
        fsync(file)
        sizes[os.fstat(file).st_ino] = os.fstat(file).st_size

    monkeypatch.setattr(os, "fsync", fsync_and_note)
    writer = MetricsWriter(tmp_path, ["loss"])
    writer.write(1, {"loss": 0.5})
    files = [tmp_path / "metrics.csv", *(tmp_path / "tensorboard").iterdir()]
    assert [sizes[file.stat().st_ino] for file in files] == [file.stat().st_size for file in files]
    assert b"loss" in files[1].read_bytes()
    writer.close()


class FakeRun:
    def __init__(self, **arguments):
        self.arguments, self.rows, self.finished = arguments, [], False

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb_runs(monkeypatch):
    """Stands for the wandb package; the runs it was asked to start."""
    runs = []

    def init(**arguments):
        runs.append(FakeRun(**arguments))
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    return runs


def test_rows_go_to_weights_and_biases_as_one_run_per_work_directory(tmp_path, wandb_runs):
    for resumed, step in ((0, 1), (1, 2)):
        writer = MetricsWriter(
            tmp_path, ["loss"], resumed, wandb_project="smol", settings={"seed": 3, "data": {"threads": 2}}
        )
        writer.write(step, {"loss": 0.5 * step})
        writer.close()
    first, second = wandb_runs
    assert first.rows == [(1, {"loss": 0.5})] and second.rows == [(2, {"loss": 1.0})]
    assert first.finished and second.finished
    assert first.arguments["id"] == second.arguments["id"] and first.arguments["resume"] == "allow"
    assert first.arguments["project"] == "smol" and first.arguments["config"]["data"] == {"threads": 2}
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.csv")] == [0.5, 1.0]


def test_without_a_project_nothing_is_started_and_only_one_process_writes(tmp_path, wandb_runs):
    MetricsWriter(tmp_path / "a", ["loss"]).close()
    other = MetricsWriter(tmp_path / "b", ["loss"], active=False, wandb_project="smol")
    other.write(1, {"loss": 1.0})
    other.close()
    assert not wandb_runs and not (tmp_path / "b").exists()


def test_a_project_without_wandb_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RunError, match="config.wandb_project needs wandb, .* pip install wandb"):
        MetricsWriter(tmp_path, ["loss"], wandb_project="smol")


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(metrics.time, "monotonic", lambda: now[0])
    return now


def device(kind, memory=None):
    return types.SimpleNamespace(device_kind=kind, memory_stats=lambda: memory)


def test_a_report_is_of_the_steps_since_the_last_one(clock):
    # Four chips on two processes; a step that the model needs 788e12 FLOPs for takes at least one second on them.
    rates = Speed(4, 2, 788e12, device("TPU v5 lite", {"peak_bytes_in_use": 3 * 2**30}))
    for _ in range(5):
        rates.step(questions=10, tokens=200, waited=0.1)
        clock[0] += 2.0
    assert rates.report() == pytest.approx(
        {
            "samples_per_second": 10.0,
            "tokens_per_second_per_chip": 50.0,
            "step_seconds": 2.0,
            "input_wait": 0.05,
            "mfu": 0.5,
            "memory_gib": 3.0,
        }
    )
    rates.step(questions=1, tokens=7, waited=0.0)
    clock[0] += 1.0
    again = rates.report()
    assert (again["samples_per_second"], again["step_seconds"], again["input_wait"]) == (2.0, 1.0, 0.0)


def test_unknown_chips_have_no_utilisation(clock):
    rates = Speed(1, 1, 1e12, device("cpu"))
    rates.step(1, 1, 0.0)
    clock[0] += 1.0
    assert set(SPEED) - rates.report().keys() == {"mfu", "memory_gib"}


def test_questions_and_tokens_are_counted_without_padding():
    batch = {
        "question_ids": np.array([[0, 0, 1, 1, 2, 0], [0, 1, 1, 0, 2, 3], [0, 0, 0, 0, 0, 0]]),
        "picture_ids": np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0]]),
    }
    assert counts(batch) == (5, 11)


def traces(folder):
    return list((folder / PROFILE).rglob("*.xplane.pb"))


def run(folder, first, steps, begin, end):
    trace = StepsTrace(folder, first, steps)
    written = []
    for step in range(begin, end + 1):
        trace.before(step)
        trace.after(step, jnp.ones(4) + step)
        written.append(len(traces(folder)))
    trace.close()
    return written


def test_the_trace_is_written_after_the_last_of_its_steps(tmp_path):
    assert run(tmp_path, first=3, steps=2, begin=1, end=6) == [0, 0, 0, 1, 1, 1]


def test_a_run_that_ends_within_the_steps_writes_what_it_has(tmp_path):
    assert run(tmp_path, first=3, steps=9, begin=1, end=4) == [0, 0, 0, 0]
    assert len(traces(tmp_path)) == 1


def test_nothing_is_traced_unless_asked_for(tmp_path):
    run(tmp_path, first=0, steps=3, begin=1, end=5)
    run(tmp_path, first=9, steps=2, begin=1, end=5)
    assert not (tmp_path / PROFILE).exists()


def test_events_are_written_without_pytorch(monkeypatch):
    pytest.importorskip("torch")
    for name in [name for name in sys.modules if name == "torch" or name.startswith("tensorboardX")]:
        monkeypatch.delitem(sys.modules, name)
    assert metrics.events_writer().__name__ == "EventsWriter" and "torch" not in sys.modules
