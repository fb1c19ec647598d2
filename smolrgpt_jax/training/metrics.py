"""Metrics of a run: a CSV file to plot from and TensorBoard events to watch."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

CSV_NAME = "metrics.csv"


class MetricsWriter:
    """Appends rows of scalars; going on from `resumed_step` drops what an interrupted run had written after it.

    Of several processes only one may be `active`; the others write nothing.
    """

    def __init__(self, workdir: str | Path, columns: list[str], resumed_step: int = 0, active: bool = True):
        self.active = active
        if not active:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self.columns = ["step", *columns]
        path = workdir / CSV_NAME
        kept = [row for row in _read_rows(path) if int(row["step"]) <= resumed_step] if path.exists() else []
        self.file = open(path, "w", newline="", encoding="utf-8")
        self.csv = csv.DictWriter(self.file, self.columns, restval="", extrasaction="ignore")
        self.csv.writeheader()
        self.csv.writerows(kept)
        self.file.flush()
        self.events = SummaryWriter(str(workdir / "tensorboard"), purge_step=resumed_step + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One row; columns not among `values` stay empty."""
        if not self.active:
            return
        self.csv.writerow({"step": step, **values})
        self.file.flush()
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def close(self) -> None:
        if self.active:
            self.file.close()
            self.events.close()


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics file, numbers as float, empty cells left out."""
    return [{name: float(value) for name, value in row.items() if value} for row in _read_rows(path)]


def _read_rows(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
