"""Greedy answers token by token, for someone who reads along: two programs per prompt shape, prefill and one step."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.smollm import KVCache
from smolrgpt_jax.models.smolrgpt import Params, bind


def stream(
    config: SmolRGPTConfig,
    params: Params,
    batch: Mapping[str, jax.Array],
    *,
    max_new_tokens: int,
    eos_id: int,
    compute: Compute = Compute(),
) -> Iterator[np.ndarray]:
    """Continues left-padded prompts, yielding each token once it is known.

    The tokens are those of `generation.generate` at temperature 0; `batch` is described there.

    Yields:
      int32[B], the rows' next tokens, at most max_new_tokens times; eos after a row's first eos. Ends once every row has ended.
    """
    prompt = batch["picture_ids"] != 0
    token, cache = _prefill(config, compute, params, dict(batch), max_new_tokens)
    position = batch["positions"][:, -1]
    ended = np.zeros(len(token), bool)
    for step in range(max_new_tokens):
        written = np.where(ended, eos_id, np.asarray(token)).astype(np.int32)
        yield written
        ended |= written == eos_id
        if ended.all() or step + 1 == max_new_tokens:
            return
        token, cache = _next(config, compute, params, cache, prompt, written, position + step + 1, np.int32(step))


@functools.partial(jax.jit, static_argnames=("config", "compute", "max_new_tokens"))
def _prefill(
    config: SmolRGPTConfig, compute: Compute, params: Params, batch: dict[str, jax.Array], max_new_tokens: int
) -> tuple[jax.Array, KVCache]:
    model = bind(config, params, compute)
    rows, length = batch["input_ids"].shape
    out = model.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))
    x = model.embed(batch["input_ids"], batch["feature_index"], out["features"])
    mask = packed_attention_mask(batch["picture_ids"], batch["question_ids"])
    mask = jnp.pad(mask, ((0, 0), (0, 0), (0, max_new_tokens)))
    cache = model.decoder.init_cache(rows, length + max_new_tokens, x.dtype)
    hidden, cache = model.decoder(x, batch["positions"], mask, cache)
    return jnp.argmax(model.decoder.logits(hidden[:, -1]), axis=-1).astype(jnp.int32), cache


@functools.partial(jax.jit, static_argnames=("config", "compute"), donate_argnames="cache")
def _next(
    config: SmolRGPTConfig,
    compute: Compute,
    params: Params,
    cache: KVCache,
    prompt: jax.Array,
    token: jax.Array,
    position: jax.Array,
    step: jax.Array,
) -> tuple[jax.Array, KVCache]:
    """The tokens int32[B] after `token`, the step-th of the answer (from 0), which stands at `position` int32[B].

    prompt: bool[B, S], False on padding.
    """
    model = bind(config, params, compute)
    length, total = prompt.shape[1], cache[0].shape[2]
    slots = jnp.arange(total)
    visible = jnp.where(slots < length, jnp.pad(prompt, ((0, 0), (0, total - length))), slots <= length + step)
    x = model.decoder.embed(token[:, None], cache[0].dtype)
    y, cache = model.decoder(x, position[:, None], visible[:, None], cache, length + step)
    return jnp.argmax(model.decoder.logits(y[:, 0]), axis=-1).astype(jnp.int32), cache
