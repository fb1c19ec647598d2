"""A step that hangs tells where, once; others say nothing."""

from __future__ import annotations

import time

from smolrgpt_jax.training.watchdog import KNOWN, Watchdog


def hang_here(seconds: float) -> None:
    time.sleep(seconds)


def test_a_step_of_ten_times_the_usual_prints_the_stacks_once(capfd):
    watchdog = Watchdog("process 1 of 2", least=0.2)
    for step in range(1, KNOWN + 1):
        with watchdog.step(step):
            hang_here(0.3 if step == 1 else 0.01)  # the first one compiles
    assert capfd.readouterr().err == ""
    with watchdog.step(7):
        hang_here(0.6)
    with watchdog.step(8):
        hang_here(0.01)
    said = capfd.readouterr().err
    assert said.count("process 1 of 2: step 7 takes more than 0.2 s") == 1
    assert "hang_here" in said and "step 8" not in said
