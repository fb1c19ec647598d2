"""Longformer sequence classifier: sliding-window attention, global attention of the first token, a head on it.

Beltagy, Peters and Cohan, "Longformer: The Long-Document Transformer" (arXiv 2004.05150), as transformers'
LongformerForSequenceClassification computes it. It is the router of the published pipeline and no part of SmolRGPT.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.config import check_fields
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.models import layers
from smolrgpt_jax.models.attention import MASKED, attention
from smolrgpt_jax.models.layers import Params

EMBEDDING_STDDEV = 0.02


@dataclass(frozen=True)
class LongformerConfig:
    """A Longformer classifier; the defaults are longformer-base-4096. Raises ConfigError."""

    labels: tuple[str, ...]  # the classes' names in the order of the logits
    vocab_size: int = 50265
    positions: int = 4098  # rows of the position table, of which the first token has row pad_id + 1
    token_types: int = 1
    width: int = 768
    mlp_width: int = 3072
    heads: int = 12
    layers: int = 12
    window: int = 512  # tokens, half of them before and half behind each token
    pad_id: int = 1
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if len(set(self.labels)) != len(self.labels) or not self.labels:
            raise ConfigError(f"the labels {list(self.labels)} are none or not distinct")
        check_fields(self)
        if self.width % self.heads:
            raise ConfigError(f"width {self.width} does not divide into {self.heads} heads")
        if self.window % 2:
            raise ConfigError(f"window {self.window} is odd; half of it lies on either side of a token")
        if not 0 <= self.pad_id < self.vocab_size:
            raise ConfigError(f"pad_id {self.pad_id} is no id of a vocabulary of {self.vocab_size}")
        if self.longest < 1:
            raise ConfigError(f"a table of {self.positions} positions has no room behind pad_id {self.pad_id}")

    @property
    def longest(self) -> int:
        """Tokens of the longest text, its first and last special tokens included."""
        return self.positions - self.pad_id - 1


def position_ids(tokens: jax.Array, pad_id: int) -> jax.Array:
    """Rows of the position table: int32[B, S] -> int32[B, S].

    Tokens count from pad_id + 1, paddings have row pad_id. With pad_id 1: tokens 0 7 8 2 1 1 -> 2 3 4 5 1 1.
    """
    real = (tokens != pad_id).astype(jnp.int32)
    return jnp.cumsum(real, axis=1) * real + pad_id


def sliding_window_attention(q: jax.Array, k: jax.Array, v: jax.Array, valid: jax.Array, reach: int) -> jax.Array:
    """Attention to the first token and to the keys at most `reach` tokens away, under one softmax in float32.

    q, k, v: float[B, S, H, D], S a multiple of `reach`; valid: bool[B, S], False for paddings. Returns float[B, S, H, D]. A block of
    `reach` queries sees three blocks of keys, so that memory grows with S * reach. With reach 2 the six queries see the keys

        1 1 1 . . .
        1 1 1 1 . .
        1 1 1 1 1 .
        1 1 1 1 1 1
        1 . 1 1 1 1
        1 . . 1 1 1
    """
    batch, length, heads, dim = q.shape
    blocks = length // reach

    def three_blocks(x: jax.Array) -> jax.Array:
        """[B, S, ...] -> [B, blocks, 3 * reach, ...]: each block with the one before and the one behind it."""
        x = jnp.pad(x, ((0, 0), (reach, reach)) + ((0, 0),) * (x.ndim - 2))
        x = x.reshape(batch, blocks + 2, reach, *x.shape[2:])
        return jnp.concatenate([x[:, :-2], x[:, 1:-1], x[:, 2:]], axis=2)

    queries = q.reshape(batch, blocks, reach, heads, dim)
    offset = jnp.arange(3 * reach) - reach - jnp.arange(reach)[:, None]
    # The first token would count twice.
    visible = (jnp.abs(offset) <= reach) & three_blocks(valid.at[:, 0].set(False))[:, :, None, :]
    near = jnp.einsum("bnqhd,bnkhd->bnhqk", queries, three_blocks(k), preferred_element_type=jnp.float32)
    first = jnp.einsum("bnqhd,bhd->bnhq", queries, k[:, 0], preferred_element_type=jnp.float32)
    near = jnp.where(visible[:, :, None], near * dim**-0.5, MASKED)
    weights = jax.nn.softmax(jnp.concatenate([first[..., None] * dim**-0.5, near], axis=-1), axis=-1).astype(v.dtype)
    out = jnp.einsum("bnhqk,bnkhd->bnqhd", weights[..., 1:], three_blocks(v))
    out = out + jnp.einsum("bnhq,bhd->bnqhd", weights[..., 0], v[:, 0])
    return out.reshape(batch, length, heads, dim)


class LongformerBlock(nnx.Module):
    """Attention and MLP, each followed by the norm of its sum with its input."""

    def __init__(self, config: LongformerConfig, rngs: nnx.Rngs):
        width, split = config.width, (config.heads, config.width // config.heads)
        projections = (layers.Dense((width,), split, bias=True, rngs=rngs) for _ in range(6))
        self.query, self.key, self.value, self.query_global, self.key_global, self.value_global = projections
        self.out_proj = layers.Dense(split, (width,), bias=True, rngs=rngs)
        self.attention_norm = layers.LayerNorm(width, config.layer_norm_eps)
        self.fc1 = layers.Dense((width,), (config.mlp_width,), bias=True, rngs=rngs)
        self.fc2 = layers.Dense((config.mlp_width,), (width,), bias=True, rngs=rngs)
        self.mlp_norm = layers.LayerNorm(width, config.layer_norm_eps)
        self.reach = config.window // 2

    def attend(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """Both kinds of attention: float[B, S, H, D / H], zeros for paddings."""
        out = sliding_window_attention(self.query(x), self.key(x), self.value(x), valid, self.reach)
        out = jnp.where(valid[:, :, None, None], out, 0)
        # The first token sees all, by projections of its own.
        first = attention(self.query_global(x[:, :1]), self.key_global(x), self.value_global(x), valid[:, None, :])
        return out.at[:, :1].set(first)

    def __call__(self, x: jax.Array, valid: jax.Array) -> jax.Array:
        """x: float[B, S, D], S a multiple of half the window; valid: bool[B, S], False for paddings. Returns float[B, S, D]."""
        x = self.attention_norm(x + self.out_proj(self.attend(x, valid)))
        return self.mlp_norm(x + self.fc2(jax.nn.gelu(self.fc1(x), approximate=False)))


class LongformerEncoder(nnx.Module):
    def __init__(self, config: LongformerConfig, rngs: nnx.Rngs):
        def table(rows: int) -> nnx.Param[jax.Array]:
            return nnx.Param(layers.random(rngs, (rows, config.width), EMBEDDING_STDDEV))

        self.word_embedding = table(config.vocab_size)
        self.position_embedding = table(config.positions)
        self.token_type_embedding = table(config.token_types)
        self.embedding_norm = layers.LayerNorm(config.width, config.layer_norm_eps)
        self.blocks = layers.stack_blocks(lambda r: LongformerBlock(config, r), config.layers, rngs)
        self.pad_id = config.pad_id

    def embed(self, tokens: jax.Array) -> jax.Array:
        """int32[B, S] -> float32[B, S, D]; every token is of type 0."""
        x = self.word_embedding[...][tokens] + self.token_type_embedding[...][0]
        return self.embedding_norm(x + self.position_embedding[...][position_ids(tokens, self.pad_id)])


class LongformerClassifier(nnx.Module):
    """Texts to logits. There is no dropout: it is a matter of training, and the router's classes are told apart easily."""

    def __init__(self, config: LongformerConfig, rngs: nnx.Rngs):
        self.encoder = LongformerEncoder(config, rngs)
        self.head_dense = layers.Dense((config.width,), (config.width,), bias=True, rngs=rngs)
        self.head_out = layers.Dense((config.width,), (len(config.labels),), bias=True, rngs=rngs)
        self.reach, self.longest, self.pad_id = config.window // 2, config.longest, config.pad_id

    def __call__(self, tokens: jax.Array, attention_mask: jax.Array) -> dict[str, jax.Array]:
        """Forward pass over texts padded on the right.

        tokens: int32[B, S]; attention_mask: bool or int[B, S], 0 for paddings. Returns `embeddings` float32[B, S, D],
        `hidden_states` float32[layers, B, S, D], the last of which the head reads at the first token, and `logits`
        float32[B, labels]. Raises ValueError for more tokens than positions.
        """
        length = tokens.shape[1]
        if length > self.longest:
            raise ValueError(f"{length} tokens are more than the {self.longest} that have positions")
        padding = ((0, 0), (0, -length % self.reach))
        valid = jnp.pad(attention_mask != 0, padding)
        embeddings = self.encoder.embed(jnp.pad(tokens, padding, constant_values=self.pad_id))

        def step(block: LongformerBlock, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            x = block(x, valid)
            return x, x

        x, hidden_states = layers.run_blocks(self.encoder.blocks, embeddings, step)
        return {
            "embeddings": embeddings[:, :length],
            "hidden_states": hidden_states[:, :, :length],
            "logits": self.head_out(jnp.tanh(self.head_dense(x[:, 0]))),
        }


def abstract_params(config: LongformerConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and dtypes of all parameters, without making any array."""
    return layers.abstract(LongformerClassifier, config)


def init_params(config: LongformerConfig, key: jax.Array) -> Params:
    """Random parameters from one key; float32."""
    return layers.initial(LongformerClassifier, config, key=key)


def bind(config: LongformerConfig, params: Mapping[str, jax.Array]) -> LongformerClassifier:
    """The model over these parameters; cheap, made to be called inside jit. Raises KeyError on missing or unexpected names."""
    return layers.bound(LongformerClassifier, config, params=params)
