"""Attention, and who may attend to whom in a packed row.

Three implementations of the same numbers: `xla` everywhere, `cudnn` on GPUs, and on TPUs `flat`, a Pallas kernel that takes heads as
their projections leave them and never writes the scores to memory (`flat_attention.py`).
"""

import functools
from collections.abc import Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smolrgpt_jax.config import ATTENTIONS, AttentionImplementation
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.models import flat_attention
from smolrgpt_jax.models.flat_attention import MASKED
from smolrgpt_jax.sharding import spec_for

FLAT_ROWS = f"a multiple of {flat_attention.BLOCK} tokens up to {flat_attention.LONGEST}"
BLOCK = 128  # queries that a causal mask lets see the same keys
CUDNN_WIDEST = 256  # head; 128 before Hopper


def packed_attention_mask(picture_ids: jax.Array, question_ids: jax.Array) -> jax.Array:
    """Who may attend to whom in a packed row: bool[B, S, S].

    picture_ids: int32[B, S], 1.. the token's picture, 0 padding; question_ids: int32[B, S], 0 the picture's prefix, 1.. a question.
    A token sees earlier tokens of its own picture's prefix and of its own question. With picture_ids 1 1 1 1 1 0 and
    question_ids 0 0 1 1 2 0 (prefix of two, a question of two, a question of one, padding):

        1 . . . . .
        1 1 . . . .
        1 1 1 . . .
        1 1 1 1 . .
        1 1 . . 1 .
        . . . . . .
    """
    length = picture_ids.shape[1]
    causal = jnp.tril(jnp.ones((length, length), bool))
    same_picture = (picture_ids[:, :, None] == picture_ids[:, None, :]) & (picture_ids != 0)[:, None, :]
    visible = (question_ids[:, None, :] == 0) | (question_ids[:, :, None] == question_ids[:, None, :])
    return causal & same_picture & visible


def resolve_attention(
    name: str, platform: str, row_tokens: int = 0, dtype: str = "bfloat16", head_dims: Sequence[int] = ()
) -> AttentionImplementation:
    """The implementation for a platform ("tpu", "gpu", "cpu"): `auto` is flat on TPUs where rows and heads fit it, else xla.

    Raises RunError for a name that is none, or for one that the platform does not have or that cannot take rows of so many tokens
    (0: not known yet), the dtype or heads of these sizes.
    """
    if name == "auto":
        return "flat" if platform == "tpu" and flat_attention.takes(row_tokens, head_dims) else "xla"
    if name not in ATTENTIONS:
        raise RunError(f"there is no attention {name!r}, only auto, {', '.join(ATTENTIONS)}")
    needed = {"flat": "tpu", "cudnn": "gpu"}.get(name, platform)
    if needed != platform:
        raise RunError(f"{name} attention needs a {needed.upper()}, the devices are of platform {platform!r}")
    if name == "flat" and not flat_attention.takes(row_tokens, head_dims):
        taken = f"rows of {FLAT_ROWS} and heads of a multiple of {flat_attention.HEADS}"
        raise RunError(f"flat attention takes {taken}, not rows of {row_tokens} and heads of {list(head_dims)}")
    if name == "cudnn" and dtype != "bfloat16":
        raise RunError(f"cudnn attention computes in bfloat16 only, not in {dtype}")
    if name == "cudnn" and (row_tokens % 2 or any(dim % 8 or dim > CUDNN_WIDEST for dim in head_dims)):
        taken = f"an even number of tokens and heads of a multiple of 8 up to {CUDNN_WIDEST}"
        raise RunError(f"cudnn attention takes {taken}, not rows of {row_tokens} and heads of {list(head_dims)}")
    return cast(AttentionImplementation, name)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    mask: jax.Array | None = None,
    implementation: AttentionImplementation = "xla",
    causal: bool = False,
) -> jax.Array:
    """Scaled dot-product attention with grouped key-value heads.

    q: float[B, S, H, D]; k, v: float[B, K, G, D] with H a multiple of G. causal: the mask lets no query see the keys after its own,
    which is the K - S + s-th, so that those products are spared in steps of BLOCK queries. Returns float[B, S, H, D]. Softmax in
    float32. A query that may attend to nothing gets some mean of values.
    """
    if implementation == "cudnn":
        mask = None if mask is None else mask[:, None]
        return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    batch, length, heads, dim = q.shape
    groups = k.shape[2]
    # The queries of all heads of a group are rows of one product, which CPUs do two to three times as fast as one per head.
    q = q.reshape(batch, length, groups, heads // groups, dim).transpose(0, 2, 3, 1, 4)
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    attended = _attend(q, k, v, mask, BLOCK if causal else length)
    return attended.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, dim)


def prompt_attention(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    """`attention` with a causal mask for prompts, which are read without a gradient; in blocks a TPU takes a fifth longer."""
    return jax.lax.platform_dependent(
        q,
        k,
        v,
        tpu=lambda q, k, v: jax.nn.dot_product_attention(q, k, v, mask=mask[:, None], implementation="xla"),
        default=functools.partial(attention, mask=mask, causal=True),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, block: int) -> jax.Array:
    """Attention in blocks of so many queries, none of which sees keys after its block's last.

    q: float[B, G, N, S, D]; k: float[B, G, D, K]; v: float[B, G, K, D]; mask: bool[B, S, K]. Returns what q has. Softmax's sums divide
    what is attended in place of the weights, and the gradient is written out: XLA's own, of products and sums in one operation, takes
    CPUs nearly twice as long.
    """
    return _attend_kept(q, k, v, mask, block)[0]


def _blocks(q: jax.Array, k: jax.Array, block: int) -> list[tuple[slice, int]]:
    """Of each block its queries, and how many keys they may see."""
    length = q.shape[3]
    ends = [min(begin + block, length) for begin in range(0, length, block)]
    return [(slice(end - (end % block or block), end), k.shape[-1] - length + end) for end in ends]


def _attend_kept(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None, block: int
) -> tuple[jax.Array, tuple[Any, ...]]:
    attended, kept = [], []
    for queries, seen in _blocks(q, k, block):
        some = q[:, :, :, queries]
        rows = (*some.shape[:2], -1, some.shape[-1])
        scores = jnp.matmul(
            some.reshape(rows) * (q.shape[-1] ** -0.5), k[..., :seen], preferred_element_type=jnp.float32
        )
        if mask is not None:
            scores = scores.reshape(*some.shape[:-1], seen)
            scores = jnp.where(mask[:, None, None, queries, :seen], scores, MASKED).reshape(*rows[:-1], seen)
        largest = jnp.max(scores, axis=-1, keepdims=True)
        weights = jnp.exp(scores - largest)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        weights = weights.astype(v.dtype)
        found = jnp.matmul(weights, v[:, :, :seen], preferred_element_type=jnp.float32) / total
        attended.append(found.astype(v.dtype).reshape(some.shape))
        kept.append((weights, total, largest > MASKED))
    return jnp.concatenate(attended, axis=3), (q, k, v, kept)


def _attend_gradients(block: int, everything: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    q, k, v, kept = everything
    of_q, of_k, of_v = [], jnp.zeros_like(k), jnp.zeros_like(k)
    for (queries, seen), (weights, total, sees) in zip(_blocks(q, k, block), kept, strict=True):
        some = q[:, :, :, queries]
        rows = (*some.shape[:2], -1, some.shape[-1])
        of_block = (gradient[:, :, :, queries].reshape(rows) / total).astype(v.dtype)
        of_weights = jnp.matmul(of_block, v[:, :, :seen].swapaxes(-1, -2), preferred_element_type=jnp.float32)
        mean = jnp.einsum("bgsk,bgsk->bgs", weights, of_weights)[..., None] / total
        # Scores that a mask has replaced have no gradient.
        of_scores = jnp.where(sees, weights * (of_weights - mean), 0.0).astype(q.dtype)
        of_q.append(jnp.matmul(of_scores, k[..., :seen].swapaxes(-1, -2)).reshape(some.shape))
        of_k = _added(of_k, jnp.matmul(some.reshape(rows).swapaxes(-1, -2), of_scores))
        of_v = _added(of_v, jnp.matmul(of_block.swapaxes(-1, -2), weights))
    # Without the barrier the compiler would turn what is summed over, number by number, in place of the sums.
    of_k, of_v = jax.lax.optimization_barrier((of_k, of_v))
    scale = q.shape[-1] ** -0.5
    return jnp.concatenate(of_q, axis=3) * scale, of_k * scale, of_v.swapaxes(-1, -2), None


def _added(total: jax.Array, part: jax.Array) -> jax.Array:
    """`total` with `part` added to its first columns."""
    begun = total[..., : part.shape[-1]] + part
    return jax.lax.dynamic_update_slice_in_dim(total, begun, 0, axis=total.ndim - 1)


_attend.defvjp(_attend_kept, _attend_gradients)


def attend_flat(
    qkv: jax.Array,
    heads: flat_attention.Heads,
    mask: jax.Array | None = None,
    angles: tuple[jax.Array, jax.Array] | None = None,
) -> jax.Array:
    """`flat_attention.flat_attention`, each device over its own rows; devices along the tensor axis compute the same."""
    mesh = jax.sharding.get_abstract_mesh()
    free = set(() if mesh.empty else mesh.axis_names) - set(mesh.manual_axes)
    if all(mesh.shape[axis] == 1 for axis in free):
        return flat_attention.flat_attention(qkv, heads, mask, angles)
    rows = PartitionSpec(spec_for(("batch",), qkv.shape[:1], mesh, "rows of attention", mesh.manual_axes)[0])

    def run(qkv: jax.Array, aside: tuple[Any, Any]) -> jax.Array:
        return flat_attention.flat_attention(qkv, heads, *aside)

    return jax.shard_map(run, in_specs=(rows, rows), out_specs=rows, axis_names=free, check_vma=False)(
        qkv, (mask, angles)
    )


def cache_attention(q: jax.Array, keys: jax.Array, values: jax.Array, visible: jax.Array) -> jax.Array:
    """Attention of one token per row to cached tokens.

    q: float[B, H, D]; keys: float[B, G, D, T]; values: float[B, G, T, D]; visible: bool[B, T]. Returns float[B, H, D]. Softmax in
    float32. Both products run along the last dimension of what is cached, which on CPUs is ten times faster for the keys.
    """
    batch, heads, dim = q.shape
    groups = keys.shape[1]
    q = q.reshape(batch, groups, heads // groups, dim)
    scores = jnp.einsum("bghd,bgdt->bght", q, keys, preferred_element_type=jnp.float32) * (dim**-0.5)
    weights = jax.nn.softmax(jnp.where(visible[:, None, None], scores, MASKED), axis=-1)
    return jnp.einsum("bght,bgtd->bghd", weights.astype(values.dtype), values).reshape(batch, heads, dim)
