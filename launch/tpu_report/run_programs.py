"""The programs of a run, ready to be compiled without data or devices: train step, prefill, decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from smolrgpt_jax import sharding
from smolrgpt_jax.config import PRESETS, Compute, SmolRGPTConfig
from smolrgpt_jax.data.rows import RowShape, empty_batch
from smolrgpt_jax.flops import row_flops, train_flops
from smolrgpt_jax.generation.decode import generate
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


@dataclass(frozen=True)
class ProgramToCompile:
    """A jitted function with its abstract arguments.

    kept: bytes on one device by kind of argument. model_flops: FLOPs of one run on all devices together that the model needs;
    computed_flops: with what rematerialisation computes again.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    kept: Mapping[str, int]
    rows: int
    model_flops: float
    computed_flops: float


def make_program(run: Mapping[str, Any], mesh: Mesh, what: What = "train", new_tokens: int = 64) -> ProgramToCompile:
    """The program of a run's configuration over a mesh.

    `prefill` encodes pictures and prompts of row_tokens and chooses one token; `decode` goes on to `new_tokens`. Raises
    ValueError if the batch does not divide over the mesh, or a name of the configuration is unknown.
    """
    if what not in get_args(What):
        raise ValueError(f"there is no program {what!r}, only {', '.join(get_args(What))}")
    check_values(run)
    stage = STAGES[run["stage"]].with_peaks(run["optimizer"]["peaks"])
    if not run["data"]["row_tokens"]:
        raise ValueError("without data no row length can be chosen: give config.data.row_tokens")
    platform = mesh.devices.flat[0].platform
    config = PRESETS[run["model"]["preset"]]
    compute = run_compute(config, run, platform, run["data"]["row_tokens"])
    shape = row_shape(config, run["data"], stage.regions)
    rows, accumulation = run["batch_rows"], run["accumulation"] if what == "train" else 1
    sharding.check_batch_rows(rows, mesh, accumulation)
    strategy = run["strategy"]
    shapes = abstract_params(config)
    params = _placed(shapes, sharding.param_shardings(shapes, mesh, strategy))
    batch = abstract_batch(rows, shape, mesh, weights=what == "train" and run["question_balance"] != 0)
    if what != "train":
        return _generation(config, compute, params, batch, shape, rows, mesh, new_tokens if what == "decode" else 1)
    trained = {n: params[n] for n in stage.trained(params)}
    frozen = {n: p for n, p in params.items() if n not in trained}
    settings = OptimizerConfig(**{k: v for k, v in run["optimizer"].items() if k != "peaks"})
    optimizer = make_optimizer(stage, trained, SCHEDULE_STEPS, settings)
    state = _placed(
        jax.eval_shape(optimizer.init, trained), sharding.optimizer_shardings(optimizer, trained, mesh, strategy)
    )
    needed, computed = train_flops(config, shape, stage, compute.remat == "full")
    return ProgramToCompile(
        function=jit_train_step(config, optimizer, trained, mesh, strategy, accumulation, compute),
        arguments=(trained, frozen, state, batch),
        kept={
            "trained parameters": device_bytes(trained),
            "frozen parameters": device_bytes(frozen),
            "optimiser state": device_bytes(state),
            "batch": device_bytes(batch),
        },
        rows=rows,
        model_flops=needed * rows,
        computed_flops=computed * rows,
    )


def _generation(
    config: SmolRGPTConfig,
    compute: Compute,
    params: Mapping[str, Any],
    batch: dict[str, Any],
    shape: RowShape,
    rows: int,
    mesh: Mesh,
    new_tokens: int,
) -> ProgramToCompile:
    batch = dict(batch, input_ids=batch["tokens"])
    del batch["tokens"], batch["targets"]

    def run(params: Any, batch: Any, key: jax.Array) -> jax.Array:
        with sharding.over(mesh):
            return generate(config, params, batch, key, max_new_tokens=new_tokens, eos_id=EOS_ID, compute=compute)

    key = jax.eval_shape(lambda: jax.random.key(0))
    key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=sharding.replicated(mesh))
    prompt = row_flops(config, shape)
    per_token = (prompt.blocks - _attention_flops(config, shape.tokens)) / shape.tokens
    per_token += prompt.head / shape.tokens
    longest = shape.tokens + new_tokens
    attended = 4 * config.decoder.layers * longest * config.decoder.width
    # Prefill attends over the cache's whole length, and only its last token goes through the head.
    first = prompt.total - prompt.head + prompt.head / shape.tokens
    first += _attention_flops(config, shape.tokens) * (longest / shape.tokens - 1)
    flops = rows * (first + (new_tokens - 1) * (per_token + attended))
    return ProgramToCompile(
        function=jax.jit(run),
        arguments=(params, batch, key),
        kept={"parameters": device_bytes(params), "batch": device_bytes(batch)},
        rows=rows,
        model_flops=flops,
        computed_flops=flops,
    )


def _attention_flops(config: SmolRGPTConfig, tokens: int) -> float:
    return config.decoder.layers * 4 * tokens**2 * config.decoder.width


def abstract_batch(rows: int, shape: RowShape, mesh: Mesh, weights: bool = False) -> dict[str, jax.ShapeDtypeStruct]:
    """The arrays of a packed batch (see `smolrgpt_jax.data.rows.empty_batch`), split over the mesh."""
    split = sharding.batch_sharding(mesh)
    return {
        name: jax.ShapeDtypeStruct((rows, *value.shape[1:]), value.dtype, sharding=split)
        for name, value in empty_batch(1, shape, 0, weights).items()
    }


def _placed(shapes: Any, shardings: Any) -> Any:
    return jax.tree.map(lambda s, place: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=place), shapes, shardings)


def device_bytes(tree: Any) -> int:
    """Bytes that one device holds of abstract arrays with shardings."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * jnp.dtype(x.dtype).itemsize for x in jax.tree.leaves(tree))
