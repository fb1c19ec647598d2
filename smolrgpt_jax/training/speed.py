"""How fast a run goes: its rates between two reports."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from smolrgpt_jax.chips import peak_flops

COLUMNS = ("samples_per_second", "tokens_per_second_per_chip", "step_seconds", "input_wait", "mfu", "memory_gib")


class Speed:
    """Rates of the steps since the last report.

    A report holds, of `COLUMNS`: samples_per_second (questions, all processes together), tokens_per_second_per_chip (without
    padding), step_seconds (mean), input_wait (share of the time spent waiting for a batch), mfu (FLOPs that the model needs,
    of forward and backward without rematerialisation, over the chips' peak), memory_gib (most that the first device held).
    """

    def __init__(self, chips: int, processes: int, step_flops: float, device: jax.Device):
        """step_flops: of one step of all chips, see flops.train_flops."""
        peak = peak_flops(device.device_kind)
        self._chips, self._processes, self._device = chips, processes, device
        self._mfu_seconds = None if peak is None else step_flops / peak / chips
        self._restart()

    def _restart(self) -> None:
        self._since, self._waited, self._steps, self._questions, self._tokens = time.monotonic(), 0.0, 0, 0, 0

    def waited(self, seconds: float) -> None:
        """Adds time that passed between asking for a batch and having it."""
        self._waited += seconds

    def step(self, questions: int, tokens: int) -> None:
        """Adds a step with this process's questions and tokens."""
        self._steps += 1
        self._questions += questions
        self._tokens += tokens

    def report(self) -> dict[str, float]:
        """The rates since the last report, or since the beginning."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        per_step = seconds / max(self._steps, 1)
        values = {
            # The processes have equal shares of every batch, up to chance.
            "samples_per_second": self._questions * self._processes / seconds,
            "tokens_per_second_per_chip": self._tokens * self._processes / seconds / self._chips,
            "step_seconds": per_step,
            "input_wait": self._waited / seconds,
        }
        if self._mfu_seconds is not None:
            values["mfu"] = self._mfu_seconds / per_step
        memory = (self._device.memory_stats() or {}).get("peak_bytes_in_use")
        if memory is not None:
            values["memory_gib"] = memory / 2**30
        self._restart()
        return values


def counts(batch: Mapping[str, Any]) -> tuple[int, int]:
    """Questions and tokens, padding not counted, in this process's rows of a packed batch."""
    questions = sum(len(np.unique(row[row > 0])) for row in batch["question_ids"])
    return questions, int(np.count_nonzero(batch["picture_ids"]))
