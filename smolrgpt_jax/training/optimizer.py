"""AdamW with a schedule per parameter group, as the PyTorch release trains."""

import math
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import optax

from smolrgpt_jax.training.settings import OptimizerConfig
from smolrgpt_jax.training.stages import Stage


def learning_rate(peak: float, steps: int, config: OptimizerConfig) -> optax.Schedule:
    """Linear warm-up, then cosine to `config.final * peak` at `steps`.

    The warm-up length is `warmup * steps`, not rounded, and the rate at step s of it is peak * (s + 1) / length: as the
    release computes it, so that a fractional length of under two steps overshoots the peak once. A length of under one step,
    which would overshoot without bound, is none.
    """
    warmup = config.warmup * steps
    warmup = 0.0 if warmup < 1.0 else warmup

    def schedule(step: jax.Array) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(steps - warmup, 1e-9), 0.0, 1.0)
        cosine = config.final + (1.0 - config.final) * 0.5 * (1.0 + jnp.cos(math.pi * progress))
        return peak * jnp.where(step < warmup, (step + 1.0) / max(warmup, 1e-9), cosine)

    return schedule


def schedules(stage: Stage, steps: int, config: OptimizerConfig) -> dict[str, optax.Schedule]:
    return {g.name: learning_rate(float(g.peak), steps, config) for g in stage.groups if g.peak is not None}


def make_optimizer(
    stage: Stage, trained: Iterable[str], steps: int, config: OptimizerConfig
) -> optax.GradientTransformation:
    """The optimiser of a stage over its trained parameters (a flat dict; frozen ones never enter it).

    Global-norm clipping, Adam moments, decoupled weight decay on every trained parameter, then the group's learning rate.
    """
    labels = {name: stage.group_of(name).name for name in trained}
    rates = {name: optax.scale_by_learning_rate(s) for name, s in schedules(stage, steps, config).items()}
    clip, adam = optax.clip_by_global_norm(config.clip_norm), optax.scale_by_adam(config.b1, config.b2, config.eps)
    decay = optax.add_decayed_weights(config.weight_decay)
    return optax.chain(clip, adam, decay, optax.multi_transform(rates, labels))
