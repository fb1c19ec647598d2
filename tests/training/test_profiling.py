from __future__ import annotations

import jax.numpy as jnp

from smolrgpt_jax.training.profiling import FOLDER, StepsTrace


def traces(folder):
    return list((folder / FOLDER).rglob("*.xplane.pb"))


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
    assert not (tmp_path / FOLDER).exists()
