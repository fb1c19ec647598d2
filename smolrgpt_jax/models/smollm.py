"""SmolLM2 decoder: rotary grouped-query attention, SwiGLU, RMSNorm, tied head, with an optional key-value cache."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smolrgpt_jax.config import AttentionImplementation, Compute, DecoderConfig
from smolrgpt_jax.models.attention import MASKED, attend_flat, attention, cache_attention, prompt_attention
from smolrgpt_jax.models.flat_attention import Heads, flat_aside
from smolrgpt_jax.models.layers import Dense, Params, RMSNorm, bound, random, run_blocks, stack_blocks
from smolrgpt_jax.sharding import constrain, constrain_batch

# Stacked over layers: keys and values, float[L, B, K, G, D].
KVCache = tuple[jax.Array, jax.Array]
Angles = tuple[jax.Array, jax.Array]  # cosines and sines, float32[B, S, head_dim / 2] each


def inverse_frequencies(head_dim: int, base: float) -> np.ndarray:
    """Rotary frequencies, float32[head_dim / 2], to the bit as PyTorch computes them.

    PyTorch's power is rounded once; NumPy's in float32 is off by up to two units in the last place.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    powers = np.power(float(base), exponents.astype(np.float64)).astype(np.float32)
    return np.float32(1.0) / powers


def rotary_angles(positions: jax.Array, config: DecoderConfig, longest: int) -> Angles:
    """The angles at positions int32[B, S].

    `longest` is a static bound on the positions; where it exceeds `max_positions`, frequencies
    are divided by (largest position + 1) / max_positions, as the PyTorch release does.
    """
    frequencies = jnp.asarray(inverse_frequencies(config.head_dim, config.rope_base))
    if longest > config.max_positions:
        length = jnp.max(positions).astype(jnp.float32) + 1.0
        frequencies = frequencies / jnp.maximum(length / config.max_positions, 1.0)
    angles = positions.astype(jnp.float32)[..., None] * frequencies
    return jnp.cos(angles) * config.rope_scale, jnp.sin(angles) * config.rope_scale


def rotate(x: jax.Array, angles: Angles) -> jax.Array:
    """Rotates pairs (first half, second half) of the head dimension of x, float[B, S, H, D]."""
    cos, sin = (jnp.concatenate([a, a], axis=-1)[:, :, None] for a in angles)
    half = x.shape[-1] // 2
    # x @ swap is (-second half, first half): CPUs and TPUs multiply faster than they move halves.
    swap = np.eye(2 * half, k=half, dtype=np.float32) - np.eye(2 * half, k=-half, dtype=np.float32)
    # Of bfloat16 exact as it is.
    precision = "highest" if x.dtype == jnp.float32 else None
    turned = jnp.matmul(x, swap.astype(x.dtype), precision=precision, preferred_element_type=jnp.float32)
    return (x.astype(jnp.float32) * cos + turned * sin).astype(x.dtype)


@functools.partial(jax.checkpoint, prevent_cse=False)
def _gated(gate: jax.Array, up: jax.Array) -> jax.Array:
    """SiLU(gate) * up, computed again for the gradient: that is faster than keeping what stands between, layer by layer."""
    return jax.nn.silu(gate) * up


class DecoderBlock(nnx.Module):
    def __init__(self, config: DecoderConfig, rngs: nnx.Rngs):
        width, dim = config.width, config.head_dim
        residual_scale = config.residual_init_scale * (2 * config.layers) ** -0.5
        self.heads = Heads(config.heads, config.kv_heads, dim)
        self.norm1 = RMSNorm(width, config.rms_norm_eps)
        self.q_proj = Dense((width,), (config.heads, dim), bias=False, rngs=rngs)
        self.k_proj = Dense((width,), (config.kv_heads, dim), bias=False, rngs=rngs)
        self.v_proj = Dense((width,), (config.kv_heads, dim), bias=False, rngs=rngs)
        self.out_proj = Dense((config.heads, dim), (width,), bias=False, rngs=rngs, init_scale=residual_scale)
        self.norm2 = RMSNorm(width, config.rms_norm_eps)
        self.gate_proj = Dense((width,), (config.mlp_width,), bias=False, rngs=rngs)
        self.up_proj = Dense((width,), (config.mlp_width,), bias=False, rngs=rngs)
        self.down_proj = Dense((config.mlp_width,), (width,), bias=False, rngs=rngs, init_scale=residual_scale)

    def __call__(
        self, x: jax.Array, angles: Angles, mask: jax.Array, implementation: AttentionImplementation
    ) -> jax.Array:
        """x: float[B, S, D]. Returns the same."""
        if implementation == "flat":
            return self._finish(x, attend_flat(self._joined(self.norm1(x)), self.heads, mask, angles))
        return self._finish(x, attention(*self._project(x, angles), mask, implementation, causal=True))

    def decode(
        self, x: jax.Array, angles: Angles, visible: jax.Array, cache: KVCache, column: jax.Array
    ) -> tuple[jax.Array, KVCache]:
        """One token per row: x float[B, 1, D]; arguments and the new cache as in `Decoder.decode`, of this layer."""
        q, k, v = self._project(x, angles)
        keys, values = cache
        k, v = k.transpose(0, 2, 3, 1).astype(keys.dtype), v.transpose(0, 2, 1, 3).astype(values.dtype)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, k, column, axis=3)
        values = jax.lax.dynamic_update_slice_in_dim(values, v, column, axis=2)
        attended = cache_attention(q[:, 0], keys.astype(q.dtype), values.astype(q.dtype), visible)
        return self._finish(x, attended[:, None]), (keys, values)

    def extend(
        self, x: jax.Array, angles: Angles, mask: jax.Array, before: KVCache | None
    ) -> tuple[jax.Array, KVCache]:
        """x: float[B, S, D]; arguments and what is returned beside x as in `Decoder.extend`, of this layer; None for no others."""
        q, k, v = self._project(x, angles)
        if before is not None:
            k, v = (jnp.concatenate([old.astype(new.dtype), new], axis=1) for old, new in zip(before, (k, v)))
        return self._finish(x, prompt_attention(q, k, v, mask)), (k, v)

    def _project(self, x: jax.Array, angles: Angles) -> tuple[jax.Array, jax.Array, jax.Array]:
        h = self.norm1(x)
        return rotate(self.q_proj(h), angles), rotate(self.k_proj(h), angles), self.v_proj(h)

    def _joined(self, h: jax.Array) -> jax.Array:
        """Queries, keys and values by one product, float[B, S, (H + 2 G) * D]."""
        kernels = (
            p.kernel[...].astype(h.dtype).reshape(h.shape[-1], -1) for p in (self.q_proj, self.k_proj, self.v_proj)
        )
        return h @ jnp.concatenate(list(kernels), axis=1)

    def _finish(self, x: jax.Array, attended: jax.Array) -> jax.Array:
        x = x + self.out_proj.flat(attended.reshape(*x.shape[:-1], -1))
        h = self.norm2(x)
        return x + self.down_proj(_gated(self.gate_proj(h), self.up_proj(h)))


class Decoder(nnx.Module):
    """Embeddings in, logits out; token lookup is separate so that image and region features can take a token's place."""

    def __init__(self, config: DecoderConfig, compute: Compute, rngs: nnx.Rngs):
        def table() -> nnx.Param[jax.Array]:
            # Rows past the vocabulary are zero: they are never looked up, and export trims them.
            rows = random(rngs, (config.padded_vocab_size, config.width), config.embedding_stddev)
            return nnx.Param(jnp.where(jnp.arange(len(rows))[:, None] < config.vocab_size, rows, 0.0))

        self.token_embedding = table()
        self.head = None if config.tied_head else table()
        self.blocks = stack_blocks(lambda r: DecoderBlock(config, r), config.layers, rngs)
        self.norm = RMSNorm(config.width, config.rms_norm_eps)
        self.config, self.compute = config, compute

    def embed(self, tokens: jax.Array) -> jax.Array:
        """tokens: int32[...] -> float[..., D]."""
        # Looked up in a table of whole rows: split by width, XLA would gather the whole batch for the table's gradient.
        table = constrain(self.token_embedding[...], ("vocab", "none"))
        return jnp.take(table, tokens, axis=0).astype(self.compute.dtype)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """hidden: float[..., D] (after the final norm) -> float32[..., padded vocabulary]; padding can never be chosen."""
        table = (self.token_embedding if self.head is None else self.head)[...].astype(hidden.dtype)
        logits = jnp.einsum("...d,vd->...v", hidden, table, preferred_element_type=jnp.float32)
        logits = constrain(logits, ("batch", *("none",) * (logits.ndim - 2), "vocab"))
        if self.config.vocab_size == self.config.padded_vocab_size:
            return logits
        return jnp.where(jnp.arange(logits.shape[-1]) < self.config.vocab_size, logits, MASKED)

    def __call__(
        self, x: jax.Array, positions: jax.Array, mask: jax.Array, keep: bool = False
    ) -> tuple[jax.Array, KVCache | None]:
        """x: float[B, S, D]; positions: int32[B, S]; mask: bool[B, S, S], where no token may see a later one.

        Returns hidden float[B, S, D] after the final norm, and the layers' keys and values, float[L, B, S, G, D], if they are kept.
        """
        angles = rotary_angles(positions, self.config, mask.shape[-1])
        if self.compute.attention == "flat" and not keep:
            mask, angles = flat_aside(mask, angles)

        def step(block: DecoderBlock, x: jax.Array) -> tuple[jax.Array, KVCache | None]:
            if not keep:
                return block(x, angles, mask, self.compute.attention), None
            # Prompts differ in length and are read once: no kernel is made for them.
            x, made = block.extend(x, angles, mask, None)
            return x, jax.tree.map(lambda a: constrain(a, ("batch", "none", "heads", "none")), made)

        x, kept = run_blocks(self.blocks, x, step, self.compute, outputs=keep)
        return self.norm(x), kept

    def extend(
        self, blocks: Sequence[DecoderBlock], x: jax.Array, positions: jax.Array, mask: jax.Array, before: KVCache
    ) -> tuple[jax.Array, KVCache]:
        """Reads S tokens that follow P others: x float[B, S, D], positions int32[B, S], mask bool[B, S, P + S], causal too.

        blocks: as in `decode`; before: keys and values of the P, float[L, B, P, G, D]. Returns hidden float[B, S, D] after the final
        norm, and the keys and values of all P + S.
        """
        angles, layers = rotary_angles(positions, self.config, mask.shape[-1]), []
        for block, *old in zip(blocks, *before, strict=True):
            x, layer = block.extend(x, angles, mask, (old[0], old[1]))
            layers.append(layer)
        keys, values = map(jnp.stack, zip(*layers))
        return self.norm(x), (keys, values)

    def decode(
        self,
        blocks: Sequence[DecoderBlock],
        x: jax.Array,
        positions: jax.Array,
        visible: jax.Array,
        cache: Sequence[KVCache],
        column: jax.Array,
    ) -> tuple[jax.Array, tuple[KVCache, ...]]:
        """One more token of every row.

        blocks: the layers one by one (`unstacked_blocks`), since a loop over stacked ones would copy every weight for every
        token. x: float[B, D], embedded tokens; positions: int32[B]; visible: bool[B, T], the columns of the cache that a row
        attends to, the new one among them; cache: per layer keys float[B, G, D, T] and values float[B, G, T, D]; column: int32[],
        where all rows' new keys and values go: one place for all can be written without copying the cache. Returns hidden
        float[B, D] after the final norm and the new cache.
        """
        angles = rotary_angles(positions[:, None], self.config, visible.shape[1])
        x, written = x[:, None], []
        for block, layer_cache in zip(blocks, cache, strict=True):
            x, layer_cache = block.decode(constrain_batch(x), angles, visible, layer_cache, column)
            written.append(layer_cache)
        return self.norm(x)[:, 0], tuple(written)


@functools.partial(jax.jit, static_argnames="dtype")
def unstacked_params(params: Mapping[str, jax.Array], dtype: Any) -> list[Params]:
    """The parameters of each layer, from the stacked ones (named without "decoder/blocks/"); products' weights in `dtype`."""
    layers = len(next(iter(params.values())))
    cast = {name: a.astype(dtype) if name.endswith("kernel") else a for name, a in params.items()}
    return [{name: a[i] for name, a in cast.items()} for i in range(layers)]


def unstacked_blocks(config: DecoderConfig, layers: Sequence[Params]) -> list[DecoderBlock]:
    """The layers over `unstacked_params`; made to be called inside jit."""
    return [bound(DecoderBlock, config, params=params) for params in layers]
