from __future__ import annotations

import sys
import types

import pytest

from smolrgpt_jax.errors import RunError
from smolrgpt_jax.training.metrics import MetricsWriter, read_metrics


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
