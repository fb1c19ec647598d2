"""One training step as a pure function: loss over a packed batch, gradients of the trained parameters, update."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.smolrgpt import Params, bind, loss_sums
from smolrgpt_jax.sharding import Strategy, constrain_batch

Batch = Mapping[str, jax.Array]


def batch_loss(
    config: SmolRGPTConfig, trained: Params, frozen: Params, batch: Batch, compute: Compute = Compute()
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy over the batch's answer tokens and their number.

    batch: as in `SmolRGPT.__call__` with targets int32[B, S], and weights float32[B, S] of the tokens in both sums; 1 without.
    """
    logits = bind(config, {**trained, **frozen}, compute)(batch)["logits"]
    losses, counts = loss_sums(logits, batch["targets"], batch.get("weights"))
    return jnp.sum(losses), jnp.sum(counts)


def gradients(
    config: SmolRGPTConfig,
    trained: Params,
    frozen: Params,
    batch: Batch,
    accumulation: int = 1,
    shardings: Mapping[str, jax.sharding.Sharding] | None = None,
    compute: Compute = Compute(),
) -> tuple[Params, jax.Array]:
    """Gradients and value of the mean loss per answer token over the whole batch, weighted where the batch has weights.

    With accumulation the rows are taken in that many parts, one after another; sums are divided by the number of answer
    tokens of all parts together, so the result does not depend on how the rows are split. `shardings`: where each gradient
    is kept (by name), so that a sharded sum is never whole on any device.
    """

    def part(trained: Params, rows: Batch) -> tuple[tuple[jax.Array, jax.Array], Params]:
        loss = jax.value_and_grad(lambda t: batch_loss(config, t, frozen, rows, compute), has_aux=True)
        sums, grads = loss(trained)
        if shardings is not None:
            grads = {n: jax.lax.with_sharding_constraint(g, shardings[n]) for n, g in grads.items()}
        return sums, grads

    if accumulation == 1:
        (loss, count), grads = part(trained, batch)
    else:
        # Every part takes every n-th row, so that each device's rows stay on it.
        parts = {name: jnp.swapaxes(v.reshape(-1, accumulation, *v.shape[1:]), 0, 1) for name, v in batch.items()}

        def add(total: Any, rows: Batch) -> tuple[Any, None]:
            rows = {name: constrain_batch(v) for name, v in rows.items()}
            return jax.tree.map(jnp.add, total, part(trained, rows)), None

        zeros = {n: jnp.zeros_like(v, device=None if shardings is None else shardings[n]) for n, v in trained.items()}
        ((loss, count), grads), _ = jax.lax.scan(add, ((jnp.zeros(()), jnp.zeros(())), zeros), parts)
    # A batch without an answer has neither loss nor gradient.
    count = jnp.where(count > 0, count, 1.0)
    return jax.tree.map(lambda g: g / count, grads), loss / count


def make_train_step(
    config: SmolRGPTConfig,
    optimizer: optax.GradientTransformation,
    accumulation: int = 1,
    mesh: Mesh | None = None,
    strategy: Strategy = "data",
    compute: Compute = Compute(),
) -> Callable[[Params, Params, Any, Batch], tuple[Params, Any, dict[str, jax.Array]]]:
    """step(trained, frozen, opt_state, batch) -> (trained, opt_state, {loss, grad_norm}); to be jitted with donation."""

    def step(trained: Params, frozen: Params, opt_state: Any, batch: Batch) -> tuple[Params, Any, dict[str, jax.Array]]:
        shardings = None if mesh is None else sharding.grad_shardings(trained, mesh, strategy)
        with sharding.over(mesh):
            grads, loss = gradients(config, trained, frozen, batch, accumulation, shardings, compute)
            updates, opt_state = optimizer.update(grads, opt_state, trained)
            metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
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
    return jax.jit(step, donate_argnums=(0, 2), out_shardings=kept)
