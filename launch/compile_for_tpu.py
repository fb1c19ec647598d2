"""Compiles a run's real train step (or prefill, decoding) for a TPU topology on a machine without TPUs.

    python -m launch.compile_for_tpu --config configs/stage3_sft.py --topology v5e:16x16 [--slices 2] [--find_batch] \\
        [--what train|prefill|decode] [--out report.json] [--config.any.key=value]

Prints memory per chip, collectives, FLOPs and an estimate of the step's time. Needs libtpu, which pip installs anywhere:
pip install 'jax[tpu]'. Nothing is run.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
from pathlib import Path
from typing import Any

from absl import flags

from launch import run_config
from smolrgpt_jax.chips import SLICES as TOPOLOGIES
from smolrgpt_jax.chips import find_slice

CONFIG = run_config.define()
TOPOLOGY = flags.DEFINE_string("topology", None, f"one of {', '.join(TOPOLOGIES)}", required=True)
SLICES = flags.DEFINE_integer("slices", 1, "slices of that topology", lower_bound=1)
WHAT = flags.DEFINE_enum("what", "train", ["train", "prefill", "decode"], "program to compile")
NEW_TOKENS = flags.DEFINE_integer("new_tokens", 64, "tokens that decode adds to the prompt", lower_bound=2)
FIND_BATCH = flags.DEFINE_bool("find_batch", False, "look for the largest number of rows per chip that fits")
START = flags.DEFINE_integer("start", 8, "rows per chip that --find_batch begins with", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "JSON file for the report")

# The compiler needs no device; these stop libtpu looking for one, for a metadata server and for a lock held by another process.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


def topology_devices(name: str, slices: int = 1) -> list[Any]:
    """The devices of a topology, which can be compiled for but not used.

    Raises ValueError for an unknown name, or without libtpu.
    """
    chip = find_slice(name).chip
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for TPUs needs libtpu, which is not installed: pip install 'jax[tpu]'")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    import jax
    from jax.experimental import topologies

    jax.config.update("jax_platforms", "cpu")  # too late for the environment where jax is imported
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices


def compile_run(
    run: dict[str, Any], topology: str, slices: int = 1, what: str = "train", new_tokens: int = 64
) -> dict[str, Any]:
    """Compiles a configuration's program for a topology; returns the report.

    Raises ValueError (DoesNotFit where memory is too small).
    """
    devices = topology_devices(topology, slices)
    from launch.tpu_report.report import compile_program, report_on
    from launch.tpu_report.run_programs import make_program
    from smolrgpt_jax import sharding

    mesh = sharding.make_mesh(run["mesh"], devices, run["strategy"])
    program = make_program(run, mesh, what, new_tokens)
    compiled, seconds = compile_program(program)
    settings = {"strategy": run["strategy"], "accumulation": run["accumulation"], **run["model"]}
    return {
        "topology": topology,
        "what": what,
        "stage": run["stage"],
        "row_tokens": run["data"]["row_tokens"],
        "settings": settings,
        **report_on(program, compiled, mesh, find_slice(topology).chip),
        "compile_seconds": seconds,
    }


def find_batch(run: dict[str, Any], topology: str, slices: int, what: str, start: int) -> dict[str, Any]:
    """The report of the largest batch without accumulation whose program fits a chip, to within an eighth.

    It fits if the compiler finds the memory and if the sum of arguments, outputs and temporaries, which counts some of it
    twice, is not above the chip's. Raises ValueError if not even one row per chip fits.
    """
    from launch.tpu_report.report import DoesNotFit, largest_fitting
    from smolrgpt_jax import sharding

    mesh = sharding.make_mesh(run["mesh"], topology_devices(topology, slices), run["strategy"])
    ways = sharding.batch_ways(mesh)
    best: dict[str, Any] = {}

    def fits(rows_per_chip: int) -> bool:
        nonlocal best
        trial = copy.deepcopy(run) | {"batch_rows": rows_per_chip * ways, "accumulation": 1}
        try:
            report = compile_run(trial, topology, slices, what)
        except DoesNotFit as error:
            print(f"  {rows_per_chip} rows per chip: {error}", flush=True)
            return False
        memory = report["memory"]
        fit = memory["total"] <= memory["chip_hbm"]
        verdict = "fit" if fit else "would leave no memory"
        print(f"  {rows_per_chip} rows per chip {verdict}: {memory['total'] / 2**30:.2f} GiB", flush=True)
        if fit:
            best = report
        return fit

    if not largest_fitting(fits, start):
        raise ValueError(f"not one row per chip fits {topology}")
    return best | {"largest_rows_per_chip": best["rows"] // ways}


def write_json(report: dict[str, Any], path: str | Path) -> None:
    """Writes a report, aside first."""
    path = Path(path)
    aside = path.with_name(path.name + ".partial")
    aside.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    aside.replace(path)


def main(arguments: list[str]) -> None:
    if len(arguments) > 1:
        raise SystemExit(f"error: unknown argument {arguments[1]!r}")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    run = CONFIG.value.to_dict()
    print(
        f"compiling {WHAT.value} of stage {run['stage']} ({run['model']['preset']}) for "
        f"{SLICES.value} x {TOPOLOGY.value}; nothing is run",
        flush=True,
    )
    try:
        if FIND_BATCH.value:
            report = find_batch(run, TOPOLOGY.value, SLICES.value, WHAT.value, START.value)
        else:
            report = compile_run(run, TOPOLOGY.value, SLICES.value, WHAT.value, NEW_TOKENS.value)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    from launch.tpu_report.report import as_text

    print(as_text(report))
    if "largest_rows_per_chip" in report:
        print(f"largest batch found: {report['largest_rows_per_chip']} rows per chip")
    if OUT.value:
        write_json(report, OUT.value)


if __name__ == "__main__":
    run_config.start(main)
