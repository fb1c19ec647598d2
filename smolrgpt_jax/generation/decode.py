"""The prefill and the decode step: looped (`generate`), streamed (`stream`), run over slots that are refilled (`engine`), exported.

The cache of a row has two parts. The first C columns hold its prompt. The last M take the answer: there all rows write to the same
column, which goes round as in a ring, so that the cache is written in place; a row sees the last columns, as many as it has
written. With C = 4, M = 4, the third step in the ring's column 1:

    prompt of 3, 2 tokens written     p p p .   2 ^ . 1      ^ this step's
    prompt of 4, just begun           p p p p   . ^ . .

The first step reads the last token of the prompt, which is therefore not among the prompt's columns.
"""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.generation.constraint import Constraint
from smolrgpt_jax.generation.sampling import GREEDY, Sampling, choose
from smolrgpt_jax.models.attention import MASKED, packed_attention_mask
from smolrgpt_jax.models.smollm import KVCache, unstacked_blocks, unstacked_params
from smolrgpt_jax.models.smolrgpt import Params, SmolRGPT, bind
from smolrgpt_jax.sharding import constrain, constrain_batch

BLOCKS = "decoder/blocks/"
TABLES = ("decoder/token_embedding", "decoder/head")
Batch = Mapping[str, jax.Array]  # see `prefill`


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Weights:
    """A model for decoding: all of its parameters, and those of each layer of the decoder by itself."""

    config: SmolRGPTConfig = field(metadata={"static": True})
    compute: Compute = field(metadata={"static": True})
    params: Mapping[str, Any]
    layers: list[Params]

    @property
    def model(self) -> SmolRGPT:
        """Made to be called inside jit."""
        return bind(self.config, self.params, self.compute)


class Cache(NamedTuple):
    """What the next token of B rows attends to."""

    prompt: jax.Array  # bool[B, C], the columns that hold the prompt
    steps: jax.Array  # int32[B], tokens of the answer
    column: jax.Array  # int32[], the next one of the ring
    layers: tuple[KVCache, ...]  # keys float[B, G, D, C + M] and values float[B, G, C + M, D] of each


class Slots(NamedTuple):
    """B answers being written."""

    token: jax.Array  # int32[B], the last token, not yet in the cache
    cache: Cache
    written: jax.Array  # int32[B, M], the answers
    ended: jax.Array  # bool[B], also of free slots
    budget: jax.Array  # int32[B], most tokens of the answer
    keys: jax.Array  # uint32[B, 2], of its random numbers
    state: jax.Array  # int32[B], of the constraint


def decode_weights(config: SmolRGPTConfig, compute: Compute, params: Mapping[str, Any]) -> Weights:
    """The weights of products in the dtype they are computed in, so that no step converts them."""
    blocks = {name.removeprefix(BLOCKS): p for name, p in params.items() if name.startswith(BLOCKS)}
    tables = {name: params[name].astype(compute.dtype) for name in TABLES if name in params}
    return Weights(config, compute, dict(params) | tables, unstacked_params(blocks, compute.dtype))


def left_padded(attention_mask: jax.Array | np.ndarray) -> dict[str, jax.Array]:
    """positions, picture_ids and question_ids, int32[B, S], of rows of one question each; attention_mask: [B, S], 0 on padding."""
    attended = (jnp.asarray(attention_mask) != 0).astype(jnp.int32)
    positions = jnp.maximum(jnp.cumsum(attended, axis=1) - 1, 0)
    return {"positions": positions, "picture_ids": attended, "question_ids": jnp.zeros_like(attended)}


def prefill(weights: Weights, batch: Batch, features: jax.Array | None = None) -> tuple[jax.Array, KVCache]:
    """Reads prompts: their hidden states float[B, S, D] after the final norm, keys and values float[L, B, S, G, D].

    batch: tokens, positions, feature_index, picture_ids (0 on padding) and question_ids int32[B, S]; without `features`
    (float[B, F, D], of `model.encode`) also images float[B, P, H, W, 3] and, for regions, depths and region_masks.
    """
    model = weights.model
    if features is None:
        features = model.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))["features"]
    x = model.embed(batch["tokens"], batch["feature_index"], features)
    mask = packed_attention_mask(batch["picture_ids"], batch["question_ids"])
    hidden, kept = model.decoder(x, batch["positions"], mask, keep=True)
    assert kept is not None
    return hidden, kept


def columns(keys: jax.Array, values: jax.Array, room: int = 0) -> KVCache:
    """A layer's prefilled keys and values, float[B, S, G, D] each, as a cache has them, with room for an answer."""
    keys, values = (jnp.pad(part, ((0, 0), (0, room), (0, 0), (0, 0))) for part in (keys, values))
    return keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)


def next_logits(weights: Weights, token: jax.Array, cache: Cache) -> tuple[jax.Array, Cache]:
    """One step: logits float32[B, V] of what follows `token` (int32[B]), and the cache with its column and layers moved on."""
    decoder = weights.model.decoder
    prompt_columns = cache.prompt.shape[1]
    ring = cache.layers[0][1].shape[2] - prompt_columns
    age = (cache.column - jnp.arange(ring)) % ring
    blocks, column = unstacked_blocks(weights.config.decoder, weights.layers), prompt_columns + cache.column
    positions = jnp.sum(cache.prompt, axis=1, dtype=jnp.int32) + cache.steps
    seen = jnp.concatenate([cache.prompt, age <= cache.steps[:, None]], axis=1)
    hidden, layers = decoder.decode(blocks, decoder.embed(token), positions, seen, cache.layers, column)
    return decoder.logits(hidden), cache._replace(column=(cache.column + 1) % ring, layers=layers)


def step(
    weights: Weights, slots: Slots, constraint: Constraint | None = None, *, eos_id: int, sampling: Sampling = GREEDY
) -> Slots:
    """Every answer that has not ended gets its next token; `constraint` says which tokens it may be."""
    logits, cache = next_logits(weights, slots.token, slots.cache)
    steps, state, going = cache.steps, slots.state, ~slots.ended
    if constraint is not None:
        logits = jnp.where(constraint.allowed(state), logits, MASKED)
    # A key depends on its question and the token's place in the answer, and on nothing else.
    keys = jax.random.wrap_key_data(slots.keys, impl="threefry2x32")
    token = choose(logits, sampling, jax.vmap(jax.random.fold_in)(keys, steps))
    if constraint is not None:
        token, state = constraint.write(state, token, slots.budget - steps)
    place = jnp.where(going, steps, slots.written.shape[1])
    cache = cache._replace(steps=steps + going)
    written = slots.written.at[jnp.arange(len(token)), place].set(token, mode="drop")
    ended = slots.ended | (token == eos_id) | (steps + 1 >= slots.budget)
    return placed(slots._replace(token=token, cache=cache, written=written, ended=ended, state=state))


@functools.partial(jax.jit, static_argnames=("eos_id", "sampling"), donate_argnames="slots")
def decode_until(
    ended: jax.Array | int,
    weights: Weights,
    slots: Slots,
    constraint: Constraint | None = None,
    *,
    eos_id: int,
    sampling: Sampling,
) -> Slots:
    """Takes steps until so many slots have ended (int32[])."""

    def going(state: tuple[jax.Array, Slots]) -> jax.Array:
        # Nothing takes more steps than an answer has tokens, but only this tells what reads the compiled program how many there are.
        return (state[0] < slots.written.shape[1]) & (jnp.sum(state[1].ended) < ended)

    def once(state: tuple[jax.Array, Slots]) -> tuple[jax.Array, Slots]:
        return state[0] + 1, step(weights, state[1], constraint, eos_id=eos_id, sampling=sampling)

    return jax.lax.while_loop(going, once, (jnp.int32(0), slots))[1]


def placed(slots: Slots) -> Slots:
    """The slots split over the devices of `sharding.over`."""

    def place(x: jax.Array) -> jax.Array:
        return constrain(x, ("batch", "heads", "none", "none")) if x.ndim == 4 else constrain_batch(x) if x.ndim else x

    return jax.tree.map(place, slots)


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_id"))
def start(weights: Weights, batch: Batch, key: jax.Array, *, max_new_tokens: int, eos_id: int) -> Slots:
    """Reads left-padded prompts, each of which takes a slot; their answers are written over eos."""
    _, kept = prefill(weights, batch)
    layers = tuple(columns(keys, values, max_new_tokens) for keys, values in zip(*kept))
    rows = len(batch["tokens"])
    zeros = jnp.zeros(rows, jnp.int32)
    cache = Cache((batch["picture_ids"] != 0).at[:, -1].set(False), zeros, jnp.int32(0), layers)
    written, budget = jnp.full((rows, max_new_tokens), eos_id, jnp.int32), jnp.full(rows, max_new_tokens, jnp.int32)
    keys, ended = jax.random.key_data(jax.random.split(key, rows)), jnp.zeros(rows, bool)
    return placed(Slots(batch["tokens"][:, -1], cache, written, ended, budget, keys, state=zeros))


@functools.partial(jax.jit, static_argnames=("max_new_tokens", "eos_id", "sampling"))
def generate(
    weights: Weights, batch: Batch, key: jax.Array, *, max_new_tokens: int, eos_id: int, sampling: Sampling = GREEDY
) -> jax.Array:
    """Continues left-padded prompts: int32[B, max_new_tokens], eos after a row's first eos."""
    slots = start(weights, batch, key, max_new_tokens=max_new_tokens, eos_id=eos_id)
    return decode_until(len(slots.ended), weights, slots, eos_id=eos_id, sampling=sampling).written


def stream(weights: Weights, batch: Batch, *, max_new_tokens: int, eos_id: int) -> Iterator[np.ndarray]:
    """Yields the columns of the greedy `generate`, int32[B] each, as they are made, until every row has ended."""
    slots = start(weights, batch, jax.random.key(0), max_new_tokens=max_new_tokens, eos_id=eos_id)
    for place in range(max_new_tokens):
        slots = _step(weights, slots, eos_id=eos_id)
        yield np.asarray(slots.written)[:, place]
        if np.all(slots.ended):
            return


_step = jax.jit(step, static_argnames="eos_id", donate_argnames="slots")
