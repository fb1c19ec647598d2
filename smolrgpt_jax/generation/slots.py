"""Slots that are refilled: a finished one is given to the next question, so no step is spent on it for long."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from smolrgpt_jax.generation import decode
from smolrgpt_jax.generation.decode import Cache, Slots, Weights, placed
from smolrgpt_jax.models.smollm import KVCache


class Asked(NamedTuple):
    """Questions of a prefilled batch, for `admit`; all int32[N] but keys."""

    slot: Any  # which one takes the question, the number of slots for "none"
    row: Any  # where its tokens stand in the batch
    begin: Any
    length: Any
    budget: Any  # most tokens of its answer
    keys: Any  # uint32[N, 2], of its random numbers
    state: Any  # of the constraint before the first token


@jax.jit
def prefill(weights: Weights, batch: Mapping[str, jax.Array]) -> KVCache:
    """Keys and values of rows of questions (see `data.prompts`), float[L, R, S, G, D] each."""
    return decode.prefill(weights, batch)[1]


@functools.partial(jax.jit, static_argnames=("count", "prompt_tokens", "answer_tokens"))
def empty_slots(weights: Weights, count: int, prompt_tokens: int, answer_tokens: int) -> Slots:
    """`count` free slots for prompts of at most `prompt_tokens` and answers of at most `answer_tokens`."""
    c, zeros = weights.config.decoder, jnp.zeros(count, jnp.int32)
    keys = jnp.zeros((count, c.kv_heads, c.head_dim, prompt_tokens + answer_tokens), weights.compute.dtype)
    layers = ((keys, keys.swapaxes(2, 3)),) * c.layers
    cache = Cache(jnp.zeros((count, prompt_tokens), bool), zeros, jnp.int32(0), layers)
    written, random = jnp.zeros((count, answer_tokens), jnp.int32), jnp.zeros((count, 2), jnp.uint32)
    return placed(Slots(zeros, cache, written, jnp.ones(count, bool), budget=zeros, keys=random, state=zeros))


@functools.partial(jax.jit, static_argnames=("prefix", "longest"), donate_argnames="slots")
def admit(slots: Slots, prefilled: KVCache, tokens: jax.Array, asked: Asked, *, prefix: int, longest: int) -> Slots:
    """Gives questions their slots: the picture's prefix, computed once for all questions of a row, and the question are copied.

    prefilled, tokens (int32[R, S]): of the batch, see `prefill`; `longest`: of all prompts, in tokens.
    """

    def put(value: jax.Array, new: jax.Array) -> jax.Array:
        return value.at[asked.slot].set(jnp.asarray(new, value.dtype), mode="drop")

    columns = jnp.arange(longest)
    # Columns past a question take what stands there; they are not seen before they are written.
    sources = jnp.where(columns < prefix, columns, asked.begin[:, None] + columns - prefix)
    sources = jnp.minimum(sources, tokens.shape[1] - 1)
    last = asked.begin + asked.length - 1
    layers = []
    for keys, values, new_keys, new_values in zip(*zip(*slots.cache.layers), *prefilled):
        new = decode.columns(new_keys[asked.row[:, None], sources], new_values[asked.row[:, None], sources])
        keys = keys.at[asked.slot, :, :, :longest].set(new[0].astype(keys.dtype), mode="drop")
        values = values.at[asked.slot, :, :longest].set(new[1].astype(values.dtype), mode="drop")
        layers.append((keys, values))
    zeros = jnp.zeros_like(last)
    prompt = put(slots.cache.prompt, columns < prefix + asked.length[:, None] - 1)
    cache = slots.cache._replace(prompt=prompt, steps=put(slots.cache.steps, zeros), layers=tuple(layers))
    token, ended = put(slots.token, tokens[asked.row, last]), put(slots.ended, zeros)
    given = {name: put(getattr(slots, name), getattr(asked, name)) for name in ("budget", "keys", "state")}
    return placed(slots._replace(token=token, cache=cache, ended=ended, **given))


@jax.jit
def keep(slots: Slots, chosen: jax.Array) -> Slots:
    """Only the chosen slots, int32[B']."""
    return placed(jax.tree.map(lambda a: a[chosen] if a.ndim else a, slots))
