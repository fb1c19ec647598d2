"""Real processes answer together as one does alone, and go on together from what others left."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from eval.answering.journal import journal_files
from smolrgpt_jax import distributed
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.generation.answers import generate_answers
from smolrgpt_jax.generation.engine import AnswerOptions
from smolrgpt_jax.generation.sampling import Sampling
from tests.devices import xla_flags
from tests.generation.conftest import small_model
from tests.test_distributed import free_port

ROOT = Path(__file__).parents[2]
PROGRAM = """
    import json, sys
    from pathlib import Path
    from smolrgpt_jax import distributed

    distributed.start(initialization_timeout=300)
    import jax
    from smolrgpt_jax.data.sources.formats import read_warehouse
    from eval.answering.journal import open_journal
    from smolrgpt_jax.generation.answers import generate_answers
    from smolrgpt_jax.generation.engine import AnswerOptions
    from smolrgpt_jax.generation.sampling import Sampling
    from tests.generation.conftest import small_model

    jax.config.update("jax_default_matmul_precision", "highest")
    if __name__ == "__main__":
        data, out = map(Path, sys.argv[1:])
        with distributed.end_on_error():
            model, pictures = small_model(), read_warehouse(data, "train")
            options = AnswerOptions(8, 10, sampling=Sampling(1.0), progress=False)
            kept = open_journal(out / "journal", model, pictures, options)
            answers = {n: given.text for n, given in generate_answers(model, pictures, options, kept).items()}
            if jax.process_index() == 0:
                (out / "answers.json").write_text(json.dumps(answers))
            print("RESULT", len(answers), flush=True)
"""
pytestmark = pytest.mark.slow


def answer(data: Path, out: Path, count: int) -> dict[str, str]:
    """The answers that process 0 of `count` wrote; all have to end well with as many."""
    out.mkdir(exist_ok=True)
    program = out / "program.py"
    program.write_text(textwrap.dedent(PROGRAM))
    port, started, logs = free_port(), [], []
    for index in range(count):
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
        logs.append(out / f"log{count}-{index}")
        with open(logs[-1], "w") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, str(program), str(data), str(out)],
                    env=environment,
                    cwd=ROOT,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    try:
        codes = [process.wait(timeout=600) for process in started]
    finally:
        for process in started:
            process.kill()
    outputs = [log.read_text() for log in logs]
    assert codes == [0] * count, "\n".join(outputs)
    answers = json.loads((out / "answers.json").read_text())
    assert all(f"RESULT {len(answers)}\n" in text for text in outputs)
    return answers


def test_two_processes_answer_as_one(warehouse, pictures, tmp_path):
    options = AnswerOptions(8, 10, sampling=Sampling(1.0), progress=False)
    given = generate_answers(small_model(), read_warehouse(warehouse, "train"), options)
    expected = {name: found.text for name, found in given.items()}
    assert set(expected) == {question.id for picture in pictures for question in picture.questions}
    out = tmp_path / "two"
    assert list(answer(warehouse, out, 2).items()) == list(expected.items())
    parts = journal_files(out / "journal")
    assert [part.name for part in parts] == ["journal.0", "journal.1"]
    # One process goes on with what two have left, after the second has lost its last answers.
    lines = parts[1].read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    parts[1].write_bytes(b"".join(lines[:2]) + lines[2][:5])
    assert list(answer(warehouse, out, 1).items()) == list(expected.items())
    assert [file.name for file in journal_files(out / "journal")] == ["journal", "journal.0", "journal.1"]
