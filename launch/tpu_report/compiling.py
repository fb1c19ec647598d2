"""Compiles the programs of a run for a TPU topology on a machine without TPUs, and reports on them."""

from __future__ import annotations

import copy
import importlib.util
import os
import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.experimental import topologies

from launch.tpu_report.report import report_on
from launch.tpu_report.run_programs import ProgramToCompile, make_program
from smolrgpt_jax import sharding
from smolrgpt_jax.chips import find_slice
from smolrgpt_jax.errors import RunError

# The compiler needs no device; these stop libtpu looking for one, for a metadata server and for a lock held by another process.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


class DoesNotFit(RunError):
    """The program needs more memory than a chip has; one sentence."""


def topology_devices(name: str, slices: int = 1) -> list[Any]:
    """The devices of a topology, which can be compiled for but not used; raises RunError without libtpu."""
    chip = find_slice(name).chip
    if importlib.util.find_spec("libtpu") is None:
        raise RunError("compiling for TPUs needs libtpu, which is not installed: pip install 'jax[tpu]'")
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")  # too late for the environment where jax is imported
    options: dict[str, Any] = {"num_slices": slices} if slices > 1 else {}
    if chip.name == "v4":
        options["chip_config_name"] = "megacore"  # one device per chip
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices


def compile_program(program: ProgramToCompile) -> tuple[Any, float]:
    """The compiled program and the seconds it took; raises DoesNotFit if the compiler finds too little memory."""
    started = time.monotonic()
    try:
        compiled = program.function.lower(*program.arguments.values()).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        used = re.search(r"Used ([\d.]+\w?) of ([\d.]+\w?) (\w+)", str(error))
        detail = ": {} of {} {}".format(*used.groups()) if used else ""
        raise DoesNotFit(f"a step of {program.rows} rows needs more memory than a chip has{detail}") from None
    return compiled, time.monotonic() - started


def compile_run(
    run: Mapping[str, Any], topology: str, slices: int = 1, what: str = "train", new_tokens: int = 64
) -> dict[str, Any]:
    """Compiles a configuration's program for a topology; returns the report. Raises ValueError (DoesNotFit for too little memory)."""
    devices = topology_devices(topology, slices)
    mesh = sharding.make_mesh(run["mesh"], devices, run["strategy"])
    program = make_program(run, mesh, what, new_tokens)
    compiled, seconds = compile_program(program)
    return {
        "topology": topology,
        "what": what,
        "stage": run["stage"],
        "row_tokens": run["data"]["row_tokens"],
        "settings": {"strategy": run["strategy"], "accumulation": run["accumulation"], **run["model"]},
        **report_on(program, compiled, mesh, find_slice(topology).chip),
        "compile_seconds": seconds,
    }


def find_batch(run: Mapping[str, Any], topology: str, slices: int, what: str, start: int) -> dict[str, Any]:
    """The report of the largest batch without accumulation whose program fits a chip, to within an eighth.

    It fits if the compiler finds the memory and if the sum of arguments, outputs and temporaries, which counts some of it
    twice, is not above the chip's. Raises RunError if not even one row per chip fits.
    """
    mesh = sharding.make_mesh(run["mesh"], topology_devices(topology, slices), run["strategy"])
    ways = sharding.batch_ways(mesh)
    reports: dict[int, dict[str, Any]] = {}

    def fits(rows_per_chip: int) -> bool:
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
        reports[rows_per_chip] = report
        return fit

    largest = largest_fitting(fits, start)
    if not largest:
        raise RunError(f"not one row per chip fits {topology}")
    return reports[largest] | {"largest_rows_per_chip": largest}


def largest_fitting(fits: Callable[[int], bool], start: int = 1, limit: int = 4096) -> int:
    """The largest number for which `fits` holds, to within an eighth; 0 if not even 1 fits.

    `fits` must hold below any number that it holds for. Doubles from `start`, then bisects.
    """
    low, trial = 0, start
    while trial <= limit and fits(trial):
        low, trial = trial, 2 * trial
    high = trial if trial <= limit else low
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
