"""Real processes train together as one does alone, and stop and go on together."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from configs import default
from smolrgpt_jax import distributed
from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.write import make_warehouse
from tests.devices import xla_flags
from tests.test_distributed import free_port
from tests.training.metrics_file import read_metrics

ROOT = Path(__file__).parents[2]
STEPS = 12
PROGRAM = """
    import json, os, sys, time
    from pathlib import Path
    from smolrgpt_jax import distributed

    distributed.start(initialization_timeout=300)
    from eval.scoring.in_training import WAREHOUSE_SCORES
    from smolrgpt_jax.config import PRESETS
    from smolrgpt_jax.generation import answers
    from smolrgpt_jax.training.run import train
    from tests.training.test_run import TINY, run_config

    if __name__ == "__main__":
        data, workdir, changes = sys.argv[1:]
        if file := os.environ.get("SLOW_ANSWERS"):
            answer_prompts = answers.answer_prompts

            def slowly(*arguments):
                for found in answer_prompts(*arguments):
                    Path(file).touch()
                    time.sleep(3)
                    yield found

            answers.answer_prompts = slowly
        PRESETS["tiny"] = TINY
        with distributed.end_on_error():
            run = run_config(data, **json.loads(changes))
            print("RESULT", json.dumps(train(run, workdir, WAREHOUSE_SCORES)), flush=True)
"""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes") / "data"
    config = WarehouseConfig(scenes=8, val_scenes=2, test_scenes=2, width=96, height=54, max_pallets=5)
    make_warehouse(folder, config, workers=1)
    return folder


class Processes:
    """The processes of one run; their output goes to files beside the work directory.

    other_data: folder that the last process reads instead.
    """

    def __init__(self, data: Path, workdir: Path, count: int, other_data: Path | None = None, **changes):
        workdir.parent.mkdir(parents=True, exist_ok=True)
        program = workdir.parent / "program.py"
        program.write_text(textwrap.dedent(PROGRAM))
        port = free_port()
        self.logs = [workdir.parent / f"log{count}-{index}" for index in range(count)]
        self.started = []
        for index, log in enumerate(self.logs):
            environment = {
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "JAX_PLATFORMS": "cpu",
                "XLA_FLAGS": xla_flags(),
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": str(count),
                "JAX_PROCESS_ID": str(index),
                # One process each: those that watch over them are tested in tests/test_distributed.py.
                distributed.PARENT: str(os.getpid()),
            }
            settings = json.dumps({"steps": STEPS, "validation_sources": {}} | changes)
            own = other_data if other_data and index == count - 1 else data
            command = [sys.executable, str(program), str(own), str(workdir), settings]
            with open(log, "w") as output:
                self.started.append(
                    subprocess.Popen(command, env=environment, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
                )

    def end(self) -> tuple[list[int], list[str]]:
        """Status and output of each process, once all have ended."""
        try:
            codes = [process.wait(timeout=600) for process in self.started]
        finally:
            for process in self.started:
                process.kill()
        return codes, [log.read_text() for log in self.logs]

    def results(self) -> list[dict]:
        """What each process returned."""
        codes, outputs = self.end()
        assert codes == [0] * len(codes), "\n".join(outputs)
        return [json.loads(text.rpartition("RESULT ")[2].splitlines()[0]) for text in outputs]


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(workdir / "metrics.csv")]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    (result,) = Processes(data, workdir, 1).results()
    assert result["step"] == STEPS
    return workdir


@pytest.fixture(scope="module")
def validating(data):
    """Settings of a few steps with validation."""
    return {
        "steps": 3,
        "validate_every": 2,
        "validation_sources": {"questions": default.warehouse(str(data), "val")},
        "validation_answers": 9,
        "validation_answer_tokens": 6,
    }


@pytest.fixture(scope="module")
def validated(data, validating, tmp_path_factory):
    """A function that runs so many processes on a mesh for a few steps, with validation: rows of metrics.csv."""

    def run(count: int, **changes):
        workdir = tmp_path_factory.mktemp(f"validated{count}") / "run"
        Processes(data, workdir, count, **validating, **changes).results()
        return read_metrics(workdir / "metrics.csv")

    return functools.cache(lambda count, changes="{}": run(count, **json.loads(changes)))


@pytest.mark.parametrize(
    ("count", "changes"),
    [
        (2, {"strategy": "fsdp"}),
        (2, {"mesh": {"data": 0, "fsdp": 0, "tensor": 2}}),
        (4, {"mesh": {"data": 0, "fsdp": 0, "tensor": 4}, "strategy": "data"}),
        (4, {"mesh": {"data": 1, "fsdp": 2, "tensor": 2}, "strategy": "fsdp", "accumulation": 2}),
    ],
    ids=str,
)
def test_several_processes_train_and_validate_as_one_does(validated, count, changes):
    """The losses, and scores of answers of which each process generates a share, however rows and tensors lie on the processes."""
    rows, expected = validated(count, json.dumps(changes)), validated(1)
    scores, right = ([{n: row.get(n) for n in ("S1", "count", "distance")} for row in r] for r in (rows, expected))
    assert scores == right and [row["S1"] is None for row in scores] == [True, False, False]
    for name in ("loss", "validation_loss"):
        found, known = ([row[name] for row in r if row.get(name) is not None] for r in (rows, expected))
        assert len(found) == {"loss": 3, "validation_loss": 2}[name]
        np.testing.assert_allclose(found, known, rtol=1e-5, err_msg=name)


def test_a_signal_to_one_process_amid_its_answers_stops_all_and_the_run_goes_on(
    data, validating, validated, tmp_path, monkeypatch
):
    workdir, answering = tmp_path / "run", tmp_path / "answering"
    monkeypatch.setenv("SLOW_ANSWERS", str(answering))
    running = Processes(data, workdir, 2, strategy="fsdp", **validating)
    wait_for(running, answering.exists)
    running.started[1].send_signal(signal.SIGTERM)
    assert [(result["step"], result["stopped"]) for result in running.results()] == [(2, True)] * 2
    assert [row["step"] for row in read_metrics(workdir / "metrics.csv")] == [1]
    monkeypatch.delenv("SLOW_ANSWERS")
    Processes(data, workdir, 2, strategy="fsdp", **validating).results()
    found, expected = read_metrics(workdir / "metrics.csv"), validated(2, '{"strategy": "fsdp"}')
    names = ("step", "loss", "validation_loss", "S1", "count", "distance")
    assert [[row.get(n) for n in names] for row in found] == [[row.get(n) for n in names] for row in expected]


def wait_for(running: Processes, happened) -> None:
    deadline = time.monotonic() + 500
    while not happened():
        assert time.monotonic() < deadline and running.started[0].poll() is None, running.logs[0].read_text()
        time.sleep(0.02)


def test_processes_that_read_other_data_all_end_and_name_it(data, tmp_path):
    other = shutil.copytree(data, tmp_path / "other")
    records = json.loads((other / "train.json").read_text())
    (other / "train.json").write_text(json.dumps(records[:-1]))
    codes, outputs = Processes(data, tmp_path / "run", 2, other_data=other).end()
    assert 0 not in codes and not (tmp_path / "run" / "metrics.csv").exists()
    sentence = rf"of 2 processes, 1 \(from 0\) would go on with .*training questions {len(records) - 1} instead of {len(records)}"
    for output in outputs:
        assert re.search(sentence, output), output


def test_a_signal_to_one_process_stops_all_and_any_number_goes_on(data, alone, tmp_path):
    workdir = tmp_path / "run"
    running = Processes(data, workdir, 4)
    metrics = workdir / "metrics.csv"
    wait_for(running, lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    running.started[1].send_signal(signal.SIGTERM)
    results = running.results()
    assert all(result["stopped"] for result in results), results
    assert len({result["step"] for result in results}) == 1 and results[0]["step"] < STEPS
    for count in (1, 2):
        again = tmp_path / str(count) / "run"
        shutil.copytree(workdir, again)
        assert [result["step"] for result in Processes(data, again, count).results()] == [STEPS] * count
        np.testing.assert_allclose(losses(again), losses(alone), rtol=1e-5)
