"""Which validation was the best, and when to stop waiting for a better one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass
class Selection:
    """The course of one metric over the validations.

    metric: its name; of a loss lower is better, of anything else higher. best, best_step: its best value and when; worse:
    validations since then. patience: how many of them end the run, 0 for no end.
    """

    metric: str
    patience: int = 0
    best: float | None = None
    best_step: int | None = None
    worse: int = 0

    def add(self, step: int, values: Mapping[str, float]) -> bool:
        """Takes in a validation; returns whether it is the best so far. NaN never is.

        Raises ValueError if the metric is not among the values.
        """
        if self.metric not in values:
            raise ValueError(f"config.best_metric {self.metric!r} is not one of {', '.join(values)}")
        value = values[self.metric]
        sign = 1.0 if self.metric.endswith("loss") else -1.0
        if not math.isnan(value) and (self.best is None or sign * value < sign * self.best):
            self.best, self.best_step, self.worse = float(value), step, 0
            return True
        self.worse += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the patience is over."""
        return 0 < self.patience <= self.worse

    def __str__(self) -> str:
        if self.best is None:
            return f"no {self.metric} that is a number in {self.worse} validations"
        return f"no better {self.metric} in {self.worse} validations than {self.best:.4g} at step {self.best_step}"

    def state(self) -> dict[str, Any]:
        """What `restored` goes on from; JSON types."""
        return {"best": self.best, "best_step": self.best_step, "worse": self.worse}

    def restored(self, state: Mapping[str, Any]) -> Selection:
        """This selection at the point of a saved `state`."""
        return dataclasses.replace(self, **state)
