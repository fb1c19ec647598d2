"""The programs of a run, ready to be compiled without data or devices: train step, prefill, decoding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
from jax.sharding import Mesh

from smolrgpt_jax import sharding
from smolrgpt_jax.config import PRESETS, SmolRGPTConfig
from smolrgpt_jax.data.rows import RowShape, empty_batch
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


@dataclass(frozen=True)
class ProgramToCompile:
    """A jitted function with its abstract arguments, by what they are.

    FLOPs are of one run on all devices: what the model needs, and with what rematerialisation computes again.
    """

    function: Callable[..., Any]
    arguments: Mapping[str, Any]
    rows: int
    model_flops: float
    computed_flops: float

    def argument_bytes(self) -> dict[str, int]:
        """Bytes on one device by kind of argument."""
        return {
            kind: sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))
            for kind, tree in self.arguments.items()
            if kind != "key"
        }


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
    rows, accumulation = run["batch_rows"], run["accumulation"] if what == "train" else 1
    sharding.check_batch_rows(rows, mesh, accumulation)
    strategy = run["strategy"]
    shapes = abstract_params(config)
    params = _placed(shapes, sharding.param_shardings(shapes, mesh, strategy))
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
    state = _placed(
        jax.eval_shape(optimizer.init, trained), sharding.optimizer_shardings(optimizer, trained, mesh, strategy)
    )
    parts = row_parts(config, shape.tokens, shape.pictures, shape.regions)
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
