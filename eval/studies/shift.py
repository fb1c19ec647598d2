"""Layout shift: a checkpoint trained on the demo's warehouse, asked about warehouses with other cameras, other looks, more objects.

The test warehouses are those of configs/studies.py, version 1: fixed seed and parameters, made anew by this command.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from configs import studies as configs
from eval.studies.results import Found, of_one_run, write_study
from eval.warehouse import answer_questions, evaluate, run_details
from smolrgpt_jax.data.records import BadRecords, DataError
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.data.warehouse_sim.config import WarehouseConfig
from smolrgpt_jax.data.warehouse_sim.write import make_warehouse

if TYPE_CHECKING:
    from smolrgpt_jax.loading import Model


def run_study(
    model: Model, out: Path, *, checkpoint: Path, batch_size: int, max_new_tokens: int, scenes: int = 100
) -> Found:
    """Makes the test warehouses under OUT/data, answers them and writes the study.

    Returns the scores of each variant with 95 % intervals over pictures. Raises DataError or OSError.
    """
    found = {}
    for variant in configs.SHIFT:
        print(f"shift: {variant}", flush=True)
        name = variant.replace(" ", "_")
        data = out / "data" / name
        if not (data / "metadata.json").exists():
            data.parent.mkdir(parents=True, exist_ok=True)
            make_warehouse(data, WarehouseConfig(**configs.shifted_warehouse(variant, scenes)))
        bad = BadRecords("error")
        metrics = evaluate(
            read_warehouse(data, "val", on_bad_record=bad),
            lambda asked: answer_questions(model, asked, batch_size, max_new_tokens, bad),
            out / name,
            run_info=run_details(
                model, "eval.studies", study="shift", variant=variant, checkpoint=checkpoint, data=data
            ),
        )
        if metrics is None:
            raise DataError(f"{data}: no answers to score against")
        found[variant] = of_one_run(metrics)
    write_study(out, found, study="shift", version=configs.SHIFT_VERSION, checkpoint=str(checkpoint))
    return found
