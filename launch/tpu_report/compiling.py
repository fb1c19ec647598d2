"""Compiles the programs of a run (train step, prefill, decoding) for a TPU topology, without data or TPUs, and reports on them."""

import copy
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from launch.tpu_report.report import LOGITS, SAID, ProgramToCompile, report_on
from smolrgpt_jax import sharding
from smolrgpt_jax.chips import check_libtpu, find_slice
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.data.rows import RowShape, empty_batch
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.files import write_text
from smolrgpt_jax.flops import row_parts, train_flops
from smolrgpt_jax.generation.decode import decode_weights, generate
from smolrgpt_jax.models.smolrgpt import abstract_params
from smolrgpt_jax.training.data import row_shape, run_compute
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.settings import check_values
from smolrgpt_jax.training.stages import STAGES
from smolrgpt_jax.training.step import jit_train_step

What = Literal["train", "prefill", "decode"]
# Length of the schedule, which no size depends on.
SCHEDULE_STEPS = 1000
EOS_ID = 2
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
    check_libtpu()
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
        if used and used[3] == "vmem":
            detail += ", its fast memory, which --config.model.attention=xla leaves to the compiler"
        raise DoesNotFit(f"a step of {program.rows} rows needs more memory than a chip has{detail}") from None
    return compiled, time.monotonic() - started


def compile_run(
    run: Mapping[str, Any],
    topology: str,
    slices: int = 1,
    what: str = "train",
    new_tokens: int = 64,
    text_file: Path | None = None,
) -> dict[str, Any]:
    """Compiles a configuration's program for a topology; returns the report, and writes the compiled text if asked to.

    Raises ValueError (DoesNotFit for too little memory).
    """
    devices = topology_devices(topology, slices)
    mesh = sharding.make_mesh(run["mesh"], devices, run["strategy"])
    program = make_program(run, mesh, what, new_tokens)
    compiled, seconds = compile_program(program)
    if text_file is not None:
        write_text(text_file, compiled.as_text())
    compute = run_compute(PRESETS[run["model"]["preset"]], run, devices[0].platform, run["data"]["row_tokens"])
    chosen = {"attention": compute.attention, "remat": compute.remat}  # what "auto" is there
    return {
        "topology": topology,
        "what": what,
        "stage": run["stage"],
        "row_tokens": run["data"]["row_tokens"],
        "settings": {"strategy": run["strategy"], "accumulation": run["accumulation"], **run["model"], **chosen},
        **report_on(program, compiled, mesh, find_slice(topology).chip),
        "said": [*([LOGITS] if what == "train" else []), *SAID],
        "compile_seconds": seconds,
    }


def find_batch(
    run: Mapping[str, Any], topology: str, slices: int, what: str, start: int, new_tokens: int = 64
) -> dict[str, Any]:
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
            report = compile_run(trial, topology, slices, what, new_tokens)
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


def make_program(run: Mapping[str, Any], mesh: Mesh, what: What = "train", new_tokens: int = 64) -> ProgramToCompile:
    """The program of a run's configuration over a mesh.

    `prefill` encodes pictures and prompts of row_tokens and chooses one token; `decode` goes on to `new_tokens`. Raises
    ValueError if the batch does not divide over the mesh, or the configuration is wrong.
    """
    check_values(run)
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    if not run["data"]["row_tokens"]:
        raise ValueError("without data no row length can be chosen: give config.data.row_tokens")
    platform = mesh.devices.flat[0].platform
    config = PRESETS[run["model"]["preset"]]
    compute = run_compute(config, run, platform, run["data"]["row_tokens"])
    shape = row_shape(config, run["data"], stage.regions)
    if what == "train":
        compute = compute.replace(answers=shape.tokens // 2)  # see SAID
    rows, accumulation = run["batch_rows"], run["accumulation"] if what == "train" else 1
    sharding.check_batch_rows(rows, mesh, accumulation)
    strategy = run["strategy"]
    shapes = abstract_params(config)
    places = sharding.param_shardings if what == "train" else sharding.working_shardings
    params = _placed(shapes, places(shapes, mesh, strategy))
    split = sharding.batch_sharding(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype, sharding=split)
        for name, value in empty_batch(1, shape, 0, what == "train" and run["question_balance"] != 0).items()
    }
    if what != "train":
        new_tokens = new_tokens if what == "decode" else 1
        del batch["targets"]

        def run_generation(params: Any, batch: Any, key: jax.Array) -> jax.Array:
            with sharding.over(mesh):
                weights = decode_weights(config, compute, params)
                return generate(weights, batch, key, max_new_tokens=new_tokens, eos_id=EOS_ID)

        key = _placed(jax.eval_shape(lambda: jax.random.key(0)), sharding.replicated(mesh))
        flops = rows * generation_flops(config, shape, new_tokens)
        arguments = {"parameters": params, "batch": batch, "key": key}
        return ProgramToCompile(jax.jit(run_generation), arguments, rows, flops, flops)
    trained = {n: params[n] for n in stage.trained(params)}
    frozen = {n: p for n, p in params.items() if n not in trained}
    settings = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    optimizer = make_optimizer(stage, trained, SCHEDULE_STEPS, settings)
    places = sharding.optimizer_shardings(optimizer, trained, mesh, strategy)
    state = _placed(jax.eval_shape(optimizer.init, trained), places)
    parts = row_parts(config, shape.tokens, shape.pictures, shape.regions, compute.answers)
    return ProgramToCompile(
        jit_train_step(config, optimizer, trained, mesh, strategy, accumulation, compute),
        {"trained parameters": trained, "frozen parameters": frozen, "optimiser state": state, "batch": batch},
        rows,
        train_flops(parts, trained) * rows,
        train_flops(parts, trained, compute.remat) * rows,
    )


def generation_flops(config: SmolRGPTConfig, shape: RowShape, new_tokens: int) -> float:
    """FLOPs of one row that reads a prompt of shape.tokens and adds `new_tokens`.

    Every new token attends over the cache's whole length. The first is that of a step which reads the prompt's last token again.
    """
    tokens = shape.tokens
    parts = row_parts(config, tokens, shape.pictures, shape.regions)
    flops = {name: part.flops for name, part in parts.items()}
    head = flops.pop("head")
    per_pair = 4 * config.decoder.layers * config.decoder.width  # of tokens that attend to each other
    per_token = (flops["blocks"] + head) / tokens + per_pair * (tokens + new_tokens)
    return sum(flops.values()) + new_tokens * per_token


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings)
