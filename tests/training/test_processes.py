"""Real processes train together as one does alone, and stop and go on together."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from configs import default
from tests.training.metrics_file import read_metrics

STEPS = 12
pytestmark = pytest.mark.slow


class Processes:
    """The processes of one run; other_data: folder that the last of them reads instead."""

    def __init__(self, nursery, workdir: Path, count: int, *, other_data=None, slow_answers=None, **changes):
        self.nursery, self.workdir = nursery, workdir
        more = {"other_data": other_data, "slow_answers": slow_answers}
        more = {name: str(path) for name, path in more.items() if path}
        settings = {"steps": STEPS, "validation_sources": {}} | changes
        self.started = nursery.start(workdir, count, "tiny", settings, {}, **more)

    def end(self) -> tuple[list[int], list[str]]:
        """Status and output of each process, once all have ended."""
        codes = self.nursery.ask(self.started)
        return codes, [self.output(index) for index in range(len(codes))]

    def output(self, index: int) -> str:
        return (self.workdir.parent / f"log{index}").read_text()

    def results(self) -> list[dict]:
        """What each process returned."""
        codes, outputs = self.end()
        assert codes == [0] * len(codes), "\n".join(outputs)
        return [json.loads(text.rpartition("RESULT ")[2].splitlines()[0]) for text in outputs]


def losses(workdir: Path) -> list[float]:
    return [row["loss"] for row in read_metrics(workdir / "metrics.csv")]


@pytest.fixture(scope="module")
def alone(nursery, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("alone") / "run"
    (result,) = Processes(nursery, workdir, 1).results()
    assert result["step"] == STEPS
    return workdir


@pytest.fixture(scope="module")
def validating(nursery):
    """Settings of a few steps with validation."""
    return {
        "steps": 3,
        "validate_every": 2,
        "validation_sources": {"questions": default.warehouse(str(nursery.data), "val")},
        "validation_answers": 9,
        "validation_answer_tokens": 6,
    }


@pytest.fixture(scope="module")
def validated(nursery, validating, tmp_path_factory):
    """A function that runs so many processes on a mesh for a few steps, with validation: rows of metrics.csv."""

    def run(count: int, **changes):
        workdir = tmp_path_factory.mktemp(f"validated{count}") / "run"
        Processes(nursery, workdir, count, **validating, **changes).results()
        return read_metrics(workdir / "metrics.csv")

    return functools.cache(lambda count, changes="{}": run(count, **json.loads(changes)))


@pytest.mark.parametrize(
    ("count", "changes"),
    [(2, {"strategy": "fsdp"}), (2, {"mesh": {"data": 1, "fsdp": 1, "tensor": 2}, "accumulation": 2})],
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
    nursery, validating, validated, tmp_path
):
    workdir, answering = tmp_path / "run", tmp_path / "answering"
    running = Processes(nursery, workdir, 2, strategy="fsdp", slow_answers=answering, **validating)
    wait_for(running, answering.exists)
    os.kill(running.started[1], signal.SIGTERM)
    assert [(result["step"], result["stopped"]) for result in running.results()] == [(2, True)] * 2
    assert [row["step"] for row in read_metrics(workdir / "metrics.csv")] == [1]
    Processes(nursery, workdir, 2, strategy="fsdp", **validating).results()
    found, expected = read_metrics(workdir / "metrics.csv"), validated(2, '{"strategy": "fsdp"}')
    names = ("step", "loss", "validation_loss", "S1", "count", "distance")
    assert [[row.get(n) for n in names] for row in found] == [[row.get(n) for n in names] for row in expected]


def wait_for(running: Processes, happened) -> None:
    deadline = time.monotonic() + 500
    while not happened():
        ended = psutil.Process(running.started[0]).status() == psutil.STATUS_ZOMBIE
        assert not ended and time.monotonic() < deadline, running.output(0)
        time.sleep(0.02)


def test_processes_that_read_other_data_all_end_and_name_it(nursery, tmp_path):
    other = shutil.copytree(nursery.data, tmp_path / "other")
    records = json.loads((other / "train.json").read_text())
    (other / "train.json").write_text(json.dumps(records[:-1]))
    codes, outputs = Processes(nursery, tmp_path / "run", 2, other_data=other).end()
    assert 0 not in codes and not (tmp_path / "run" / "metrics.csv").exists()
    sentence = rf"of 2 processes, 1 \(from 0\) would go on with .*training questions {len(records) - 1} instead of {len(records)}"
    for output in outputs:
        assert re.search(sentence, output), output


def test_a_signal_to_one_process_stops_both_and_one_goes_on(nursery, alone, tmp_path):
    workdir = tmp_path / "run"
    running = Processes(nursery, workdir, 2)
    metrics = workdir / "metrics.csv"
    wait_for(running, lambda: metrics.exists() and len(metrics.read_text().splitlines()) > 2)
    os.kill(running.started[1], signal.SIGTERM)
    results = running.results()
    assert all(result["stopped"] for result in results), results
    assert len({result["step"] for result in results}) == 1 and results[0]["step"] < STEPS
    # Both go on after the signal amid answers, above.
    assert [result["step"] for result in Processes(nursery, workdir, 1).results()] == [STEPS]
    np.testing.assert_allclose(losses(workdir), losses(alone), rtol=1e-5)
