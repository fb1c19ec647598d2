"""How the next token is chosen from its logits."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp

from smolrgpt_jax.models.attention import MASKED


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampling:
    """Greedy at temperature 0, else drawn from the top_k most likely tokens and the smallest set of them whose probability
    reaches top_p (top_k 0 and top_p 1 cut nothing). Temperature and top_p may be arrays float32[B], of each row."""

    temperature: float | jax.Array = 0.0
    top_k: int = field(default=50, metadata={"static": True})
    top_p: float | jax.Array = 0.9


GREEDY = Sampling()


def choose(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """Next tokens int32[B] from logits float32[B, V]; keys: one for all rows, or one per row."""
    likeliest = jnp.argmax(logits, axis=-1).astype(jnp.int32)
    if not isinstance(sampling.temperature, jax.Array) and sampling.temperature == 0.0:
        return likeliest
    temperature, top_p = (jnp.float32(x).reshape(-1, 1) for x in (sampling.temperature, sampling.top_p))
    count = min(sampling.top_k, logits.shape[-1]) if sampling.top_k else logits.shape[-1]
    values, tokens = jax.lax.top_k(logits / jnp.where(temperature > 0, temperature, 1.0), count)
    # A token stays while the probability of those before it is below top_p, so the first one always does.
    probabilities = jax.nn.softmax(values, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    values = jnp.where(before < top_p, values, MASKED)
    draw = jax.vmap(jax.random.categorical) if keys.ndim else jax.random.categorical
    drawn = jnp.take_along_axis(tokens, draw(keys, values)[:, None], axis=1)[:, 0].astype(jnp.int32)
    return jnp.where(temperature[:, 0] > 0, drawn, likeliest)
