"""One training step as a pure function: loss over a packed batch, gradients of the trained parameters, update."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from smolrgpt_jax import sharding
from smolrgpt_jax.chips import compiler_options
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.layers import as_parameters, working_copy
from smolrgpt_jax.models.smolrgpt import Params, bind
from smolrgpt_jax.sharding import Strategy, constrain_batch
from smolrgpt_jax.training.noise import gradient_noise

Batch = Mapping[str, jax.Array]
Sums = tuple[jax.Array, jax.Array]  # of the losses, and number of answer tokens
ROWS = sharding.RULES["batch"]


def batch_loss(
    config: SmolRGPTConfig, trained: Params, frozen: Params, batch: Batch, compute: Compute = Compute()
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy over the batch's answer tokens and their number.

    batch: as in `SmolRGPT.__call__` with targets int32[B, S], and weights float32[B, S] of the tokens in both sums; 1 without.
    """
    losses, counts = bind(config, {**trained, **frozen}, compute).answer_loss(batch)
    return jnp.sum(losses), jnp.sum(counts)


def gathered(params: Params, compute: Compute, mesh: Mesh | None, strategy: Strategy) -> Params:
    """The copy of the parameters that a step computes with: cast where they are kept, and only then gathered."""
    heads_together = mesh is None or strategy != "fsdp" and mesh.shape["tensor"] == 1
    flat = compute.attention == "flat" and heads_together
    copy = working_copy(params, compute.dtype, flat)
    if mesh is None or mesh.size == 1:
        return copy
    # Else the compiler moves the casts behind the gathering.
    copy = jax.lax.optimization_barrier(copy)
    replicated = dict.fromkeys(copy, sharding.replicated(mesh))
    places = replicated if flat else sharding.working_shardings(params, mesh, strategy)
    return {n: jax.lax.with_sharding_constraint(p, places[n]) for n, p in copy.items()}


def gradients(
    config: SmolRGPTConfig,
    trained: Params,
    frozen: Params,
    batch: Batch,
    accumulation: int = 1,
    compute: Compute = Compute(),
    mesh: Mesh | None = None,
    strategy: Strategy = "data",
) -> tuple[Params, jax.Array]:
    """Gradients and value of the mean loss per answer token over the whole batch, weighted where the batch has weights.

    With accumulation the rows are taken in that many parts, one after another; sums are divided by the number of answer
    tokens of all parts together, so the result does not depend on how the rows are split. Gradients are summed over the devices in
    the dtype that is computed in, each where its parameter is kept.
    """
    return _with_parts(config, trained, frozen, batch, accumulation, compute, mesh, strategy)[:2]


def _with_parts(
    config: SmolRGPTConfig,
    trained: Params,
    frozen: Params,
    batch: Batch,
    accumulation: int,
    compute: Compute,
    mesh: Mesh | None,
    strategy: Strategy,
) -> tuple[Params, jax.Array, jax.Array]:
    """`gradients`, and the squared norm of the parts' mean gradients, averaged over the parts; 0 where there is one part."""

    # Devices that have all parameters compute on their own rows, and only the gradients are summed.
    by_device = mesh is not None and mesh.size > 1 and strategy != "fsdp"
    places = {} if mesh is None else sharding.param_shardings(trained, mesh, strategy)

    def summed(whole: Params, unchanged: Params, rows: Batch) -> tuple[Sums, Params]:
        loss = jax.value_and_grad(lambda t: batch_loss(config, t, unchanged, rows, compute), has_aux=True)
        sums, grads = loss(whole)
        if mesh is None or not by_device:
            return sums, as_parameters(grads, trained)
        # Parts of a gradient that lie along other dimensions than the first are not to be found in a flat one.
        early = any(any(place.spec[1:]) for place in places.values())
        if early:
            grads = as_parameters(grads, trained)
        grads = {n: sharding.sum_gradient(g, places[n]) for n, g in grads.items()}
        return jax.lax.psum(sums, ROWS), as_parameters(
            grads, {n: sharding.part_of(p, places[n]) for n, p in trained.items()}
        )

    if mesh is not None and by_device:
        specs = (PartitionSpec(), PartitionSpec(), PartitionSpec(ROWS))
        kept = {n: sharding.rows_part(place) for n, place in places.items()}
        own = {axis for axis in mesh.axis_names if axis in ROWS or mesh.shape[axis] == 1}
        summed = jax.shard_map(
            summed, in_specs=specs, out_specs=(PartitionSpec(), kept), axis_names=own, check_vma=False
        )
    whole, unchanged = (gathered(params, compute, mesh, strategy) for params in (trained, frozen))

    def part(rows: Batch) -> tuple[Sums, Params]:
        sums, grads = summed(whole, unchanged, rows)
        return sums, grads if mesh is None else {
            n: jax.lax.with_sharding_constraint(g, places[n]) for n, g in grads.items()
        }

    square = jnp.zeros(())
    if accumulation == 1:
        (loss, count), grads = part(batch)
    else:
        # Every part takes every n-th row, so that each device's rows stay on it.
        parts = {name: jnp.swapaxes(v.reshape(-1, accumulation, *v.shape[1:]), 0, 1) for name, v in batch.items()}

        def add(total: Any, rows: Batch) -> tuple[Any, None]:
            rows = {name: constrain_batch(v) for name, v in rows.items()}
            sums, grads = part(rows)
            square = (optax.global_norm(grads) / jnp.maximum(sums[1], 1.0)) ** 2
            return jax.tree.map(jnp.add, total, (*sums, square, grads)), None

        zeros = jax.tree.map(jnp.zeros_like, trained)
        (loss, count, square, grads), _ = jax.lax.scan(add, (*(jnp.zeros(()),) * 3, zeros), parts)
    # A batch without an answer has neither loss nor gradient.
    count = jnp.where(count > 0, count, 1.0)
    return jax.tree.map(lambda g: g / count, grads), loss / count, square / accumulation


def make_train_step(
    config: SmolRGPTConfig,
    optimizer: optax.GradientTransformation,
    accumulation: int = 1,
    mesh: Mesh | None = None,
    strategy: Strategy = "data",
    compute: Compute = Compute(),
) -> Callable[[Params, Params, Any, Batch], tuple[Params, Any, dict[str, jax.Array]]]:
    """step(trained, frozen, opt_state, batch) -> (trained, opt_state, metrics); to be jitted with donation.

    metrics: loss, grad_norm and, of a step in several parts, `gradient_noise`; float32[] each.
    """

    def step(trained: Params, frozen: Params, opt_state: Any, batch: Batch) -> tuple[Params, Any, dict[str, jax.Array]]:
        with sharding.over(mesh):
            grads, loss, square = _with_parts(config, trained, frozen, batch, accumulation, compute, mesh, strategy)
            updates, opt_state = optimizer.update(grads, opt_state, trained)
            metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
            if accumulation > 1:
                rows = len(batch["tokens"])
                metrics |= gradient_noise(metrics["grad_norm"] ** 2, square, accumulation, rows)
            return optax.apply_updates(trained, updates), opt_state, metrics

    return step


def jit_train_step(
    config: SmolRGPTConfig,
    optimizer: optax.GradientTransformation,
    trained: Mapping[str, Any],
    mesh: Mesh,
    strategy: Strategy,
    accumulation: int = 1,
    compute: Compute = Compute(),
) -> Any:
    """`make_train_step` compiled for a mesh: parameters and optimiser state are donated and keep their shardings.

    trained: the trained parameters, arrays or ShapeDtypeStructs.
    """
    kept = (
        sharding.param_shardings(trained, mesh, strategy),
        sharding.optimizer_shardings(optimizer, trained, mesh, strategy),
        sharding.replicated(mesh),
    )
    step = make_train_step(config, optimizer, accumulation, mesh, strategy, compute)
    options = compiler_options(mesh.devices.flat[0].device_kind)
    return jax.jit(step, donate_argnums=(0, 2), out_shardings=kept, compiler_options=options)
