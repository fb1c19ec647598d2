"""Layout shift: a checkpoint trained on the demo's warehouse, asked about warehouses with other cameras, other looks, more objects.

The test warehouses are those of configs/studies.py, version 1: fixed seed and parameters, made anew by this command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs import studies as configs
from eval.studies.results import Found, of_one_run, write_study
from eval.studies.scoring import score
from smolrgpt_jax.data.warehouse_sim.config import WarehouseConfig
from smolrgpt_jax.data.warehouse_sim.write import ensure_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model


def run_study(
    model: Model,
    out: Path,
    *,
    checkpoint: Path,
    batch_size: int,
    max_new_tokens: int | None,
    scenes: int = 100,
) -> Found:
    """Makes the test warehouses under OUT/data, answers them and writes the study.

    Returns the scores of each variant with 95 % intervals over pictures. Raises DataError or OSError.
    """
    found = {}
    for variant in configs.SHIFT:
        print(f"shift: {variant}", flush=True)
        name = variant.replace(" ", "_")
        data = out / "data" / name
        ensure_warehouse(data, WarehouseConfig(**configs.shifted_warehouse(variant, scenes)))
        metrics = score(
            model,
            data,
            "val",
            out / name,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            study="shift",
            variant=variant,
            checkpoint=checkpoint,
            data=data,
        )
        found[variant] = of_one_run(metrics)
    write_study(out, found, study="shift", version=configs.SHIFT_VERSION, checkpoint=str(checkpoint))
    return found
