"""A profiler trace of some steps of a run, for TensorBoard's profile page or Perfetto."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

FOLDER = "profile"


class StepsTrace:
    """Traces `steps` steps, the first of which is step `first` (counted from 1); none if either is 0."""

    def __init__(self, workdir: str | Path, first: int, steps: int):
        self._folder = Path(workdir) / FOLDER
        self._first, self._last = (first, first + steps - 1) if first and steps else (0, 0)
        self._running = False

    def before(self, step: int) -> None:
        """To be called before a step is started. A run that was resumed within the steps traces what is left of them."""
        if not self._running and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, outputs: Any) -> None:
        """To be called after a step was started, with what it will give."""
        if self._running and step == self._last:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Writes what was traced."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
