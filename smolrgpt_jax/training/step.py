"""One training step as a pure function: loss over a packed batch, gradients of the trained parameters, update."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from smolrgpt_jax.config import SmolRGPTConfig
from smolrgpt_jax.models.smolrgpt import Params, bind, loss_sums

Batch = Mapping[str, jax.Array]


def batch_loss(
    config: SmolRGPTConfig, trained: Params, frozen: Params, batch: Batch
) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy over the batch's answer tokens and their number; batch as in `SmolRGPT.__call__` with targets int32[B, S]."""
    logits = bind(config, {**trained, **frozen})(batch)["logits"]
    losses, counts = loss_sums(logits, batch["targets"])
    return jnp.sum(losses), jnp.sum(counts)


def gradients(
    config: SmolRGPTConfig, trained: Params, frozen: Params, batch: Batch, accumulation: int = 1
) -> tuple[Params, jax.Array]:
    """Gradients and value of the mean loss per answer token over the whole batch.

    With accumulation the rows are taken in that many parts, one after another; sums are divided by the number of answer
    tokens of all parts together, so the result does not depend on how the rows are split.
    """

    def part(trained: Params, rows: Batch) -> tuple[tuple[jax.Array, jax.Array], Params]:
        return jax.value_and_grad(lambda t: batch_loss(config, t, frozen, rows), has_aux=True)(trained)

    if accumulation == 1:
        (loss, count), grads = part(trained, batch)
    else:
        # Every part takes every n-th row, so that each device's rows stay on it.
        parts = {
            name: jnp.swapaxes(v.reshape(-1, accumulation, *v.shape[1:]), 0, 1) for name, v in batch.items()
        }

        def add(total: Any, rows: Batch) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, part(trained, rows)), None

        zeros = jax.tree.map(jnp.zeros_like, trained)
        ((loss, count), grads), _ = jax.lax.scan(add, ((jnp.zeros(()), jnp.zeros(())), zeros), parts)
    count = jnp.maximum(count, 1.0)
    return jax.tree.map(lambda g: g / count, grads), loss / count


def make_train_step(
    config: SmolRGPTConfig, optimizer: optax.GradientTransformation, accumulation: int = 1
) -> Callable[[Params, Params, Any, Batch], tuple[Params, Any, dict[str, jax.Array]]]:
    """step(trained, frozen, opt_state, batch) -> (trained, opt_state, {loss, grad_norm}); to be jitted with donation."""

    def step(
        trained: Params, frozen: Params, opt_state: Any, batch: Batch
    ) -> tuple[Params, Any, dict[str, jax.Array]]:
        grads, loss = gradients(config, trained, frozen, batch, accumulation)
        updates, opt_state = optimizer.update(grads, opt_state, trained)
        metrics = {"loss": loss, "grad_norm": optax.global_norm(grads)}
        return optax.apply_updates(trained, updates), opt_state, metrics

    return step


def make_eval_step(config: SmolRGPTConfig) -> Callable[[Params, Batch], tuple[jax.Array, jax.Array]]:
    """step(params, batch) -> (summed loss, number of answer tokens)."""

    def step(params: Params, batch: Batch) -> tuple[jax.Array, jax.Array]:
        return batch_loss(config, params, {}, batch)

    return step
