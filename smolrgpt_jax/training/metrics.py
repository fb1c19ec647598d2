"""What a run reports of itself: a CSV file to plot from, TensorBoard events to watch, its speed, and a profiler trace."""

import csv
import os
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import jax
import numpy as np

from smolrgpt_jax.chips import peak_flops
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.files import file_aside, sync, write_text

CSV_NAME = "metrics.csv"
EVENTS = "tensorboard"
WANDB_ID = "wandb_id"
PROFILE = "profile"
SPEED = ("samples_per_second", "tokens_per_second_per_chip", "step_seconds", "input_wait", "mfu", "memory_gib")


def events_writer() -> Any:
    """tensorboardX's class for files of events, without PyTorch, which it imports where that is installed: two seconds of a start."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # as where it is not installed
    try:
        from tensorboardX.event_file_writer import EventsWriter
    finally:
        if hidden:
            del sys.modules["torch"]
    return EventsWriter


class MetricsWriter:
    """Appends rows of scalars, on the disk as soon as they are written; going on from `resumed_step` drops what an interrupted run
    had written after it, and what a machine that lost its power left of a row.

    Of several processes only one may be `active`; the others write nothing. With a `wandb_project` rows go to Weights & Biases
    as well, `settings` as the run's configuration; a work directory stays one run there.
    """

    def __init__(
        self,
        workdir: Path,
        columns: Sequence[str],
        resumed_step: int = 0,
        active: bool = True,
        wandb_project: str = "",
        settings: Mapping[str, Any] | None = None,
    ):
        """Raises RunError if a project is given and wandb is not installed."""
        self.active, self.wandb = active, None
        if not active:
            return
        workdir.mkdir(parents=True, exist_ok=True)
        if wandb_project:
            try:
                import wandb
            except ImportError:
                raise RunError("config.wandb_project needs wandb, which is not installed: pip install wandb") from None
            file = workdir / WANDB_ID
            if not file.exists():
                write_text(file, uuid.uuid4().hex[:12])
            run = {"id": file.read_text(encoding="utf-8"), "name": workdir.name, "dir": str(workdir), "resume": "allow"}
            self.wandb = wandb.init(project=wandb_project, config=dict(settings or {}), **run)
        path = workdir / CSV_NAME
        kept = _read_rows(path, resumed_step) if path.exists() else []

        def writer(file: TextIO) -> "csv.DictWriter[str]":
            return csv.DictWriter(file, ["step", *columns], restval="", extrasaction="ignore")

        with file_aside(path) as aside, open(aside, "w", newline="", encoding="utf-8") as anew:
            writer(anew).writeheader()
            writer(anew).writerows(kept)
        self.file = open(path, "a", newline="", encoding="utf-8")
        self.csv = writer(self.file)
        (workdir / EVENTS).mkdir(exist_ok=True)
        # Not tensorboardX's own writer: its events reach the file through a queue, which cannot be waited for.
        self.events = events_writer()(str(workdir / EVENTS / "events"), f".{os.getpid()}")
        self._add_event(step=resumed_step + 1, session_log={"status": "START"})

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row; columns not among `values` stay empty."""
        if not self.active:
            return
        self.csv.writerow({"step": step, **values})
        self.file.flush()
        sync(self.file.name)
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._add_event(step=step, summary={"value": scalars})
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)

    def _add_event(self, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self.events.write_event(Event(wall_time=time.time(), **content))
        self.events.flush()  # and has it on the disk

    def close(self) -> None:
        if self.active:
            self.file.close()
            self.events.close()
            if self.wandb is not None:
                self.wandb.finish()


def _read_rows(path: Path, last_step: int) -> list[dict[str, str]]:
    """The rows up to a step; those that are damaged are left out and counted on the screen."""

    def is_whole(row: Mapping[str | None, str]) -> bool:
        try:
            return None not in row and int(row["step"]) >= 0 and [float(v) for v in row.values() if v != ""] != []
        except (KeyError, TypeError, ValueError):
            return False

    # A row without its end may be cut within a number.
    text, _, cut = path.read_text(encoding="utf-8-sig", errors="replace").rpartition("\n")
    rows = list(csv.DictReader(text.splitlines()))
    good = [row for row in rows if is_whole(row)]
    if damaged := len(rows) - len(good) + bool(cut):
        print(f"  {path}: left out {damaged} damaged row(s), as a machine that loses its power leaves them")
    return [row for row in good if int(row["step"]) <= last_step]


class Speed:
    """Rates of the steps since the last report.

    A report holds, of `SPEED`: samples_per_second (questions, all processes together), tokens_per_second_per_chip (without
    padding), step_seconds (mean), input_wait (share of the time spent waiting for a batch), mfu (FLOPs that the model needs,
    of forward and backward without rematerialisation, over the chips' peak), memory_gib (most that the first device held).
    """

    def __init__(self, chips: int, shares: float, step_flops: float, device: jax.Device):
        """shares: parts of a batch as large as this process's; step_flops: of one step of all chips, see flops.train_flops."""
        peak = peak_flops(device.device_kind)
        self._chips, self._shares, self._device = chips, shares, device
        self._mfu_seconds = None if peak is None else step_flops / peak / chips
        self._restart()

    def _restart(self) -> None:
        self._since, self._waited, self._steps, self._questions, self._tokens = time.monotonic(), 0.0, 0, 0, 0

    def step(self, questions: int, tokens: int, waited: float) -> None:
        """Adds a step with this process's questions and tokens, and the seconds between asking for its batch and having it."""
        self._steps += 1
        self._questions += questions
        self._tokens += tokens
        self._waited += waited

    def report(self) -> dict[str, float]:
        """The rates since the last report, or since the beginning."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        per_step = seconds / max(self._steps, 1)
        values = {
            # The shares of a batch are alike, up to chance.
            "samples_per_second": self._questions * self._shares / seconds,
            "tokens_per_second_per_chip": self._tokens * self._shares / seconds / self._chips,
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


class StepsTrace:
    """A profiler trace, for TensorBoard's profile page or Perfetto, of `steps` steps from step `first` (counted from 1); none if
    either is 0."""

    def __init__(self, workdir: Path, first: int, steps: int):
        self._folder, self._running = workdir / PROFILE, False
        self._steps = range(first, first + steps if first else first)

    def before(self, step: int) -> None:
        """To be called before a step is started. A run that was resumed within the steps traces what is left of them."""
        if step in self._steps and not self._running:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, outputs: Any) -> None:
        """To be called after a step was started, with what it will give."""
        if self._running and step == self._steps[-1]:
            jax.block_until_ready(outputs)
            self.close()

    def close(self) -> None:
        """Writes what was traced."""
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
