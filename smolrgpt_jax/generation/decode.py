"""Prefill and decode on the device: one program per shape, finished as soon as every row has ended."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.attention import MASKED, packed_attention_mask
from smolrgpt_jax.models.smolrgpt import Params, bind


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen: greedy at temperature 0, else drawn from the top_k most likely and the smallest set of
    them whose probability reaches top_p (top_k 0 and top_p 1 cut nothing)."""

    temperature: float = 0.0
    top_k: int = 50
    top_p: float = 0.9


GREEDY = Sampling()


def choose(logits: jax.Array, sampling: Sampling, keys: jax.Array) -> jax.Array:
    """Next tokens int32[B] from logits float32[B, V]; keys: one for all rows, or one per row."""
    if sampling.temperature == 0.0:
        return jnp.argmax(logits, axis=-1).astype(jnp.int32)
    count = min(sampling.top_k, logits.shape[-1]) if sampling.top_k else logits.shape[-1]
    values, tokens = jax.lax.top_k(logits / sampling.temperature, count)
    # A token stays while the probability of those before it is below top_p, so the first one always does.
    probabilities = jax.nn.softmax(values, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    values = jnp.where(before < sampling.top_p, values, MASKED)
    draw = jax.vmap(jax.random.categorical) if keys.ndim else jax.random.categorical
    return jnp.take_along_axis(tokens, draw(keys, values)[:, None], axis=1)[:, 0].astype(jnp.int32)


@functools.partial(jax.jit, static_argnames=("config", "max_new_tokens", "eos_id", "sampling", "compute"))
def generate(
    config: SmolRGPTConfig,
    params: Params,
    batch: Mapping[str, jax.Array],
    key: jax.Array,
    *,
    max_new_tokens: int,
    eos_id: int,
    sampling: Sampling = GREEDY,
    compute: Compute = Compute(),
) -> jax.Array:
    """Continues left-padded prompts.

    batch: input_ids, positions, feature_index, picture_ids (1, or 0 on padding), question_ids int32[B, S]; images
    float[B, P, H, W, 3]; optionally depths and region_masks. Returns int32[B, max_new_tokens]: everything after a row's
    first eos is eos. The loop ends when every row has.
    """
    model = bind(config, params, compute)
    tokens = batch["input_ids"]
    rows, length = tokens.shape
    out = model.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))
    x = model.embed(tokens, batch["feature_index"], out["features"])
    total = length + max_new_tokens
    mask = packed_attention_mask(batch["picture_ids"], batch["question_ids"])
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, max_new_tokens)))
    hidden, cache = model.decoder(x, batch["positions"], mask, model.decoder.init_cache(rows, total, x.dtype))
    first_key, loop_key = jax.random.split(key)
    token = choose(model.decoder.logits(hidden[:, -1]), sampling, first_key)
    prompt = batch["picture_ids"] != 0
    next_position = batch["positions"][:, -1] + 1

    def unfinished(state):
        step, _, _, ended, _ = state
        return (step < max_new_tokens) & ~jnp.all(ended)

    def step_once(state):
        step, token, written, ended, cache = state
        slots = jnp.arange(total)
        visible = jnp.where(slots < length, jnp.pad(prompt, ((0, 0), (0, max_new_tokens))), slots < length + step)
        x = model.decoder.embed(token[:, None], hidden.dtype)
        y, cache = model.decoder(x, (next_position + step - 1)[:, None], visible[:, None], cache, length + step - 1)
        token = choose(model.decoder.logits(y[:, 0]), sampling, jax.random.fold_in(loop_key, step))
        token = jnp.where(ended, eos_id, token)
        written = written.at[:, step].set(token)
        return step + 1, token, written, ended | (token == eos_id), cache

    written = jnp.full((rows, max_new_tokens), eos_id, jnp.int32).at[:, 0].set(token)
    return jax.lax.while_loop(unfinished, step_once, (1, token, written, token == eos_id, cache))[2]
