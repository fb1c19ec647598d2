from __future__ import annotations

import types

import numpy as np
import pytest

from smolrgpt_jax.training import speed


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(speed.time, "monotonic", lambda: now[0])
    return now


def device(kind, memory=None):
    return types.SimpleNamespace(device_kind=kind, memory_stats=lambda: memory)


def test_a_report_is_of_the_steps_since_the_last_one(clock):
    # Four chips on two processes; a step that the model needs 788e12 FLOPs for takes at least one second on them.
    rates = speed.Speed(4, 2, 788e12, device("TPU v5 lite", {"peak_bytes_in_use": 3 * 2**30}))
    for _ in range(5):
        rates.step(questions=10, tokens=200)
        rates.waited(0.1)
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
    rates.step(questions=1, tokens=7)
    clock[0] += 1.0
    again = rates.report()
    assert (again["samples_per_second"], again["step_seconds"], again["input_wait"]) == (2.0, 1.0, 0.0)


def test_unknown_chips_have_no_utilisation(clock):
    rates = speed.Speed(1, 1, 1e12, device("cpu"))
    rates.step(1, 1)
    clock[0] += 1.0
    assert set(speed.COLUMNS) - rates.report().keys() == {"mfu", "memory_gib"}


def test_questions_and_tokens_are_counted_without_padding():
    batch = {
        "question_ids": np.array([[0, 0, 1, 1, 2, 0], [0, 1, 1, 0, 2, 3], [0, 0, 0, 0, 0, 0]]),
        "picture_ids": np.array([[1, 1, 1, 1, 1, 0], [1, 1, 1, 2, 2, 2], [0, 0, 0, 0, 0, 0]]),
    }
    assert speed.counts(batch) == (5, 11)
