"""Training of the router: a Longformer classifier on texts and their categories."""

import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from smolrgpt_jax.models.layers import Params
from smolrgpt_jax.router.classify import pad_rows
from smolrgpt_jax.router.longformer import LongformerConfig, bind
from smolrgpt_jax.training.optimizer import OptimizerConfig, make_optimizer
from smolrgpt_jax.training.stages import Group, Stage


@dataclass(frozen=True)
class RouterTraining:
    """steps, batch: texts per step; peak: highest learning rate; seed: of the order of the texts. Raises ValueError."""

    steps: int
    batch: int
    peak: float
    seed: int

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"{self.steps} steps of {self.batch} texts are too few")
        if not 0 < self.peak < math.inf:
            raise ValueError(f"a learning rate of {self.peak} is not positive")
        if self.seed < 0:
            raise ValueError(f"seed {self.seed} is negative")


def shuffled_batches(number: int, batch: int, seed: int) -> Iterator[np.ndarray]:
    """Endless batches of indices below `number`, int64[batch]: one shuffled pass over all after another."""
    rng = np.random.default_rng(seed)
    waiting = np.empty(0, np.int64)
    while True:
        while len(waiting) < batch:
            waiting = np.concatenate([waiting, rng.permutation(number)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def train_router(
    config: LongformerConfig,
    params: Mapping[str, Any],
    rows: Sequence[Sequence[int]],
    labels: Sequence[int],
    training: RouterTraining,
) -> tuple[Params, list[float]]:
    """Trains every parameter with AdamW on the mean cross-entropy; returns the parameters and the loss of every step.

    rows: token ids of each text; labels: index of each text's label. Warm-up, decay, clipping and weight decay are those of
    SmolRGPT's training. Raises ValueError if the loss or a parameter stops being finite.
    """
    stage = Stage("router", (Group("all", "", training.peak),))
    optimizer = make_optimizer(stage, params, training.steps, OptimizerConfig())

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params: Params, state: Any, tokens: jax.Array, mask: jax.Array, labels: Any) -> tuple[Params, Any, Any]:
        def mean_loss(params: Params) -> jax.Array:
            logits = bind(config, params)(tokens, mask)["logits"]
            return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

        loss, grads = jax.value_and_grad(mean_loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    # Copies, as the step gives away its arguments' memory.
    trained: Params = {name: jnp.array(value, copy=True) for name, value in params.items()}
    state = optimizer.init(trained)
    of_texts = np.asarray(labels, np.int32)
    batches = itertools.islice(shuffled_batches(len(rows), training.batch, training.seed), training.steps)
    losses: list[float] = []
    with tqdm(batches, total=training.steps, desc="training", unit=" steps") as bar:
        for chosen in bar:
            tokens, mask = pad_rows([rows[i] for i in chosen], config.longest, config.pad_id)
            trained, state, loss = step(trained, state, tokens, mask, of_texts[chosen])
            losses.append(float(loss))
            if not math.isfinite(losses[-1]):
                raise ValueError(f"the loss is {loss} at step {len(losses)}; a smaller learning rate helps")
            bar.set_postfix(loss=f"{losses[-1]:.4f}")
    if not all(bool(jnp.isfinite(value).all()) for value in trained.values()):  # after the last loss
        raise ValueError(f"parameters hold NaN or infinity after step {len(losses)}; a smaller learning rate helps")
    return trained, losses
