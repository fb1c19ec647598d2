"""Metrics of a run: a CSV file to plot from and TensorBoard events to watch."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboardX import SummaryWriter

from smolrgpt_jax.errors import RunError

CSV_NAME = "metrics.csv"
WANDB_ID = "wandb_id"


class MetricsWriter:
    """Appends rows of scalars; going on from `resumed_step` drops what an interrupted run had written after it.

    Of several processes only one may be `active`; the others write nothing. With a `wandb_project` rows go to Weights & Biases
    as well, `settings` as the run's configuration; a work directory stays one run there.
    """

    def __init__(
        self,
        workdir: str | Path,
        columns: list[str],
        resumed_step: int = 0,
        active: bool = True,
        wandb_project: str = "",
        settings: Mapping[str, Any] | None = None,
    ):
        """Raises RunError if a project is given and wandb is not installed."""
        self.active = active
        if not active:
            return
        workdir = Path(workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        self.wandb = start_wandb(wandb_project, workdir, settings or {}) if wandb_project else None
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
        if self.wandb is not None:
            self.wandb.log(dict(values), step=step)

    def close(self) -> None:
        if self.active:
            self.file.close()
            self.events.close()
            if self.wandb is not None:
                self.wandb.finish()


def start_wandb(project: str, workdir: Path, settings: Mapping[str, Any]) -> Any:
    """Starts, or goes on with, the run of a work directory at Weights & Biases.

    Raises RunError if wandb is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise RunError("config.wandb_project needs wandb, which is not installed: pip install wandb") from None
    file = workdir / WANDB_ID
    if not file.exists():
        file.write_text(uuid.uuid4().hex[:12], encoding="utf-8")
    return wandb.init(
        project=project,
        id=file.read_text(encoding="utf-8"),
        name=workdir.name,
        resume="allow",
        config=dict(settings),
        dir=str(workdir),
    )


def read_metrics(path: str | Path) -> list[dict[str, float]]:
    """The rows of a metrics file, numbers as float, empty cells left out."""
    return [{name: float(value) for name, value in row.items() if value} for row in _read_rows(path)]


def _read_rows(path: str | Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
