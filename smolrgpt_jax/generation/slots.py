"""The device's side of the engine: rows are prefilled, their questions take slots, all slots decode together.

A slot's cache has two parts. The first C columns take the prompt, column = position: the picture's prefix, computed once for all
questions of a row and copied into their slots (gathering it anew for every token would read it thrice), and the question. The last
M take the answer. There all slots write to the same column, which goes round as in a ring, so that the cache is written in
place; a slot sees the last columns, as many as it has written. With C = 4, M = 4, the third step in the ring's column 1:

    prompt of 3, 2 tokens written     p p p .   2 ^ . 1      ^ this step's
    prompt of 4, just admitted        p p p p   . ^ . .

A finished slot is given to the next question, so no step is spent on it for long.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from smolrgpt_jax import sharding
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.generation.decode import Sampling, choose
from smolrgpt_jax.models.attention import MASKED, packed_attention_mask
from smolrgpt_jax.models.smollm import KVCache, unstacked_blocks, unstacked_params
from smolrgpt_jax.models.smolrgpt import Params, bind
from smolrgpt_jax.sharding import constrain, constrain_batch

BLOCKS = "decoder/blocks/"
TABLES = ("decoder/token_embedding", "decoder/head")


class Asked(NamedTuple):
    """Questions of a prefilled batch, for `admit`; all int32[N] but keys.

    slot: which one takes the question, the number of slots for "none"; row, begin, length: where its tokens stand in the batch;
    budget: most tokens of its answer's text; keys: uint32[N, 2], of its random numbers; state, value_state: of the automaton,
    before the first token and before a value.
    """

    slot: jax.Array
    row: jax.Array
    begin: jax.Array
    length: jax.Array
    budget: jax.Array
    keys: jax.Array
    state: jax.Array
    value_state: jax.Array


class Slots(NamedTuple):
    """B questions being answered.

    token: int32[B], the last token, not yet in the cache; prompt: int32[B], tokens of the prompt that are; written: int32[B, M],
    the answers; steps: int32[B], tokens written; ended: bool[B], also of free slots; budget, keys, state, value_state: see
    `Asked`; column: int32[], the next one of the ring; cache: per layer keys float[B, G, D, C + M] and values
    float[B, G, C + M, D].
    """

    token: jax.Array
    prompt: jax.Array
    written: jax.Array
    steps: jax.Array
    ended: jax.Array
    budget: jax.Array
    keys: jax.Array
    state: jax.Array
    value_state: jax.Array
    column: jax.Array
    cache: tuple[KVCache, ...]


class Tables(NamedTuple):
    """A `constraint.Automaton` on the device: classes int32[V], transitions int32[states, classes], mark int32[K]."""

    classes: jax.Array
    transitions: jax.Array
    mark: jax.Array


class Weights(NamedTuple):
    """The parameters for decoding: all of the model, and those of each layer of the decoder by itself."""

    params: Params
    layers: list[Params]


def decode_weights(compute: Compute, params: Params) -> Weights:
    """The weights of products in the dtype they are computed in, so that no step converts them."""
    dtype = compute.dtype
    blocks = {name.removeprefix(BLOCKS): p for name, p in params.items() if name.startswith(BLOCKS)}
    tables = {name: params[name].astype(dtype) for name in TABLES if name in params}
    return Weights(dict(params) | tables, unstacked_params(blocks, dtype))


@functools.partial(jax.jit, static_argnames=("config", "compute", "mesh", "count", "tokens", "answer_tokens"))
def empty_slots(
    config: SmolRGPTConfig, compute: Compute, mesh: Mesh | None, count: int, tokens: int, answer_tokens: int
) -> Slots:
    """`count` free slots for prompts of at most `tokens` and answers of at most `answer_tokens`."""
    c = config.decoder
    zeros = jnp.zeros(count, jnp.int32)
    with sharding.over(mesh):
        columns = tokens + answer_tokens
        keys = jnp.zeros((count, c.kv_heads, c.head_dim, columns), compute.dtype)
        return _placed(
            Slots(
                token=zeros,
                prompt=zeros,
                written=jnp.zeros((count, answer_tokens), jnp.int32),
                steps=zeros,
                ended=jnp.ones(count, bool),
                budget=zeros,
                keys=jnp.zeros((count, 2), jnp.uint32),
                state=zeros,
                value_state=zeros,
                column=jnp.int32(0),
                cache=((keys, keys.swapaxes(2, 3)),) * c.layers,
            )
        )


def _placed(slots: Slots) -> Slots:
    cache = tuple(tuple(constrain(part, ("batch", "heads", "none", "none")) for part in layer) for layer in slots.cache)
    rest = {name: value for name, value in slots._asdict().items() if name not in ("column", "cache")}
    return slots._replace(**{name: constrain_batch(value) for name, value in rest.items()}, cache=cache)


@functools.partial(jax.jit, static_argnames=("config", "compute", "mesh"))
def prefill(
    config: SmolRGPTConfig, compute: Compute, mesh: Mesh | None, params: Params, batch: Mapping[str, jax.Array]
) -> KVCache:
    """Keys and values of rows of questions (see `data.prompts`), float[L, R, S, G, D] each."""
    with sharding.over(mesh):
        model = bind(config, params, compute)
        out = model.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))
        x = model.embed(batch["tokens"], batch["feature_index"], out["features"])
        mask = packed_attention_mask(batch["picture_ids"], batch["question_ids"])
        cache = model.decoder.init_cache(*batch["tokens"].shape, x.dtype)
        return model.decoder(x, batch["positions"], mask, cache)[1]


@functools.partial(jax.jit, static_argnames=("mesh", "prefix", "longest"), donate_argnames="slots")
def admit(
    mesh: Mesh | None, slots: Slots, prefilled: KVCache, tokens: jax.Array, asked: Asked, *, prefix: int, longest: int
) -> Slots:
    """Gives questions their slots. tokens: int32[R, S], those of the prefilled batch; `longest`: of all prompts, in tokens."""

    def put(value: jax.Array, new: jax.Array) -> jax.Array:
        return value.at[asked.slot].set(new.astype(value.dtype), mode="drop")

    columns = jnp.arange(longest)
    sources = jnp.where(columns < prefix, columns, asked.begin[:, None] + columns - prefix)
    # Columns past a question take what stands there; they are written before they are read.
    sources = jnp.minimum(sources, tokens.shape[1] - 1)
    last = asked.begin + asked.length - 1
    cache = []
    for layer, (keys, values) in enumerate(slots.cache):
        new_keys, new_values = (stacked[layer][asked.row[:, None], sources] for stacked in prefilled)
        new_keys, new_values = new_keys.transpose(0, 2, 3, 1), new_values.transpose(0, 2, 1, 3)
        cache.append(
            (
                keys.at[asked.slot, :, :, :longest].set(new_keys.astype(keys.dtype), mode="drop"),
                values.at[asked.slot, :, :longest].set(new_values.astype(values.dtype), mode="drop"),
            )
        )
    with sharding.over(mesh):
        return _placed(
            Slots(
                token=put(slots.token, tokens[asked.row, last]),
                prompt=put(slots.prompt, prefix + asked.length - 1),
                written=slots.written,
                steps=put(slots.steps, jnp.zeros_like(last)),
                ended=put(slots.ended, jnp.zeros_like(last)),
                budget=put(slots.budget, asked.budget),
                keys=put(slots.keys, asked.keys),
                state=put(slots.state, asked.state),
                value_state=put(slots.value_state, asked.value_state),
                column=slots.column,
                cache=tuple(cache),
            )
        )


@functools.partial(jax.jit, static_argnames="mesh")
def keep(mesh: Mesh | None, slots: Slots, chosen: jax.Array) -> Slots:
    """Only the chosen slots, int32[B']."""
    with sharding.over(mesh):
        return _placed(jax.tree.map(lambda a: a[chosen] if a.ndim else a, slots))


@functools.partial(
    jax.jit, static_argnames=("config", "compute", "mesh", "eos_id", "sampling"), donate_argnames="slots"
)
def decode(
    config: SmolRGPTConfig,
    compute: Compute,
    mesh: Mesh | None,
    weights: Weights,
    slots: Slots,
    tables: Tables | None,
    until: jax.Array,
    *,
    eos_id: int,
    sampling: Sampling,
) -> Slots:
    """Writes tokens until so many slots have ended (int32[], at least one more than now)."""
    with sharding.over(mesh):
        blocks = unstacked_blocks(config.decoder, weights.layers)
        decoder = bind(config, weights.params, compute).decoder

        def step(slots: Slots) -> Slots:
            ring = slots.written.shape[1]
            before = slots.cache[0][1].shape[2] - ring
            age = (slots.column - jnp.arange(ring)) % ring
            visible = jnp.concatenate([jnp.arange(before) < slots.prompt[:, None], age <= slots.steps[:, None]], axis=1)
            hidden, cache = decoder.decode(
                blocks,
                slots.token,
                slots.prompt + slots.steps,
                visible,
                slots.cache,
                before + slots.column,
                compute.dtype,
            )
            logits = decoder.logits(hidden)
            if tables is not None:
                following = tables.transitions[slots.state]
                allowed = jnp.take_along_axis(following, tables.classes[None], axis=1) >= 0
                logits = jnp.where(allowed, logits, MASKED)
            token = choose(logits, sampling, _step_keys(slots))
            state, full = slots.state, slots.steps + 1 >= slots.budget
            if tables is not None:
                token, state, full = _follow(tables, slots, token, eos_id)
            rows = jnp.arange(len(token))
            going = ~slots.ended
            columns = jnp.where(going, slots.steps, slots.written.shape[1])
            return _placed(
                slots._replace(
                    token=token,
                    written=slots.written.at[rows, columns].set(token, mode="drop"),
                    steps=slots.steps + going,
                    ended=slots.ended | (token == eos_id) | full,
                    state=state,
                    column=(slots.column + 1) % ring,
                    cache=cache,
                )
            )

        return jax.lax.while_loop(lambda slots: jnp.sum(slots.ended) < until, step, slots)


def _step_keys(slots: Slots) -> jax.Array:
    """A key per slot that depends on its question and the token's place in the answer, and on nothing else."""
    keys = jax.random.wrap_key_data(slots.keys, impl="threefry2x32")
    return jax.vmap(jax.random.fold_in)(keys, slots.steps)


def _follow(tables: Tables, slots: Slots, token: jax.Array, eos_id: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Next token, state of the automaton, and whether the budget of a row without closing is used up."""
    states, mark = len(tables.transitions), len(tables.mark)
    free, plain = slots.state < mark, slots.state == 2 * mark
    close = free & ((token == eos_id) | (slots.steps >= slots.budget))
    token = jnp.where(close, tables.mark[0], token)
    before = jnp.where(close, mark, slots.state)
    state = tables.transitions[before, tables.classes[token]]
    state = jnp.where(state == states, slots.value_state, state)
    return token, state, plain & (slots.steps + 1 >= slots.budget)
