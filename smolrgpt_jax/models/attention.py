"""Attention, and who may attend to whom in a packed row.

Three implementations of the same numbers: `xla` everywhere, `cudnn` on GPUs, `splash` (a Pallas kernel that never writes the
scores to memory) on TPUs. The first two take a mask, bool[B, S, K]; splash takes `PackedSpans`, from which it computes the
mask block by block.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from smolrgpt_jax.config import ATTENTIONS, AttentionImplementation
from smolrgpt_jax.errors import RunError
from smolrgpt_jax.sharding import spec_for

MASKED = -1e30  # finite, so that a row with nothing to attend to gives no NaN

# Splash: a token's three indices share an int32, and the kernel's lanes are 128 wide.
INDEX_BITS = 10
SPLASH_LONGEST = 2**INDEX_BITS
SPLASH_MULTIPLE = 128
SPLASH_BLOCK = 512
SPLASH_ROWS = f"a multiple of {SPLASH_MULTIPLE} tokens up to {SPLASH_LONGEST}"
CUDNN_WIDEST = 256  # head; 128 before Hopper


class PackedSpans(NamedTuple):
    """What each token of packed rows may attend to, as the splash kernel takes it.

    segments: int32[B, S], the token's picture, 0 on padding. spans: int32[B, S], three indices into the row, ten bits each: the
    token itself, the end (exclusive) of its picture's prefix, the first token of its question.
    """

    segments: jax.Array
    spans: jax.Array


Mask = jax.Array | PackedSpans  # of the first kind bool[B, S, K], True = may attend; the second is for splash, K = S


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


def packed_spans(picture_ids: jax.Array, question_ids: jax.Array) -> PackedSpans:
    """The same mask as `packed_attention_mask` for rows whose pictures, prefixes and questions are each contiguous, prefix first.

    Only padding differs: it sees earlier padding instead of nothing. Raises ValueError for rows that the kernel cannot take.
    """
    length = picture_ids.shape[1]
    if not splash_takes(length):
        raise ValueError(f"splash attention takes rows of {SPLASH_ROWS}, not {length}")
    index = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), picture_ids.shape)

    def latest(here: jax.Array) -> jax.Array:
        return jax.lax.cummax(jnp.where(here, index, -1), axis=1)

    new_picture, new_question = (jnp.diff(ids, axis=1, prepend=-1) != 0 for ids in (picture_ids, question_ids))
    picture_start, question_start = latest(new_picture), latest(new_picture | new_question)
    prefix = latest(question_ids == 0)
    # A prefix's own tokens are a run like a question's.
    prefix_end = jnp.where((question_ids != 0) & (prefix >= picture_start), prefix + 1, 0)
    spans = (index << 2 * INDEX_BITS) | (prefix_end << INDEX_BITS) | question_start
    return PackedSpans(picture_ids.astype(jnp.int32), spans)


def splash_takes(length: int) -> bool:
    """Whether the splash kernel takes rows of this many tokens."""
    return length % SPLASH_MULTIPLE == 0 and length <= SPLASH_LONGEST


def resolve_attention(
    name: str, platform: str, row_tokens: int = 0, dtype: str = "bfloat16", head_dims: Sequence[int] = ()
) -> AttentionImplementation:
    """The implementation for a platform ("tpu", "gpu", "cpu"): `auto` is splash on TPUs where the rows fit it, else xla.

    Raises RunError for a name that is none, or for one that the platform does not have or that cannot take rows of so many tokens
    (0: not known yet), the dtype or heads of these sizes.
    """
    if name == "auto":
        return "splash" if platform == "tpu" and splash_takes(row_tokens) else "xla"
    if name not in ATTENTIONS:
        raise RunError(f"there is no attention {name!r}, only auto, {', '.join(ATTENTIONS)}")
    needed = {"splash": "tpu", "cudnn": "gpu"}.get(name, platform)
    if needed != platform:
        raise RunError(f"{name} attention needs a {needed.upper()}, the devices are of platform {platform!r}")
    if name == "splash" and not splash_takes(row_tokens):
        raise RunError(f"splash attention takes rows of {SPLASH_ROWS}, not {row_tokens}")
    if name == "cudnn" and dtype != "bfloat16":
        raise RunError(f"cudnn attention computes in bfloat16 only, not in {dtype}")
    if name == "cudnn" and (row_tokens % 2 or any(dim % 8 or dim > CUDNN_WIDEST for dim in head_dims)):
        taken = f"an even number of tokens and heads of a multiple of 8 up to {CUDNN_WIDEST}"
        raise RunError(f"cudnn attention takes {taken}, not rows of {row_tokens} and heads of {list(head_dims)}")
    return cast(AttentionImplementation, name)


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, mask: Mask | None = None, implementation: AttentionImplementation = "xla"
) -> jax.Array:
    """Scaled dot-product attention with grouped key-value heads.

    q: float[B, S, H, D]; k, v: float[B, K, G, D] with H a multiple of G. Returns float[B, S, H, D]. Softmax in float32. A query
    that may attend to nothing gets the mean of all values.
    """
    if isinstance(mask, PackedSpans):
        return _splash(q, k, v, mask)
    if implementation == "cudnn":
        mask = None if mask is None else mask[:, None]
        return jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    batch, length, heads, dim = q.shape
    groups = k.shape[2]
    q = q.reshape(batch, length, groups, heads // groups, dim)
    scores = jnp.einsum("bsghd,bkgd->bghsk", q, k, preferred_element_type=jnp.float32) * (dim**-0.5)
    if mask is not None:
        scores = jnp.where(mask[:, None, None], scores, MASKED)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    return jnp.einsum("bghsk,bkgd->bsghd", weights, v).reshape(batch, length, heads, dim)


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


def _may_attend(spans: jax.Array, key: jax.Array) -> jax.Array:
    """Whether tokens with these spans may attend to the keys at these places; int32 arrays of one shape."""
    low = SPLASH_LONGEST - 1
    token, prefix_end, question_start = spans >> 2 * INDEX_BITS, (spans >> INDEX_BITS) & low, spans & low
    return (key <= token) & ((key < prefix_end) | (key >= question_start))


def _splash(q: jax.Array, k: jax.Array, v: jax.Array, packed: PackedSpans) -> jax.Array:
    """Splash attention, each device over its own rows and heads.

    Segment ids alone cannot say it: a prefix key is seen by several questions that must not see each other. And a mask given as
    an array would make the kernel loop over the batch. A mask computed from per-token numbers does neither; the public
    constructors take such a mask only as a constant, so the kernel is put together here.
    """
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo

    length, dim = q.shape[1], q.shape[3]
    block = math.gcd(length, SPLASH_BLOCK)
    # Queries, keys and values, those computed at once; the same three of the backward pass.
    sizes = splash.BlockSizes(*(block,) * 6, use_fused_bwd_kernel=True)
    options: dict[str, Any] = {"mask_value": splash.DEFAULT_MASK_VALUE, "mask_function": _may_attend}
    options |= dict.fromkeys(("is_mqa", "save_residuals", "interpret"), False)
    options |= dict.fromkeys(("attn_logits_soft_cap", "residual_checkpoint_name"))

    def row(q: jax.Array, k: jax.Array, v: jax.Array, segments: jax.Array, spans: jax.Array) -> jax.Array:
        info: Any = MaskInfo(None, None, None, None, q_sequence=cast(Any, spans))
        kernel: Any = splash.SplashAttentionKernel(info, None, info, block_sizes=sizes, **options)
        heads_first = [x.swapaxes(0, 1) for x in (q, k, v)]
        return kernel(*heads_first, splash.SegmentIds(segments, segments)).swapaxes(0, 1)

    def rows(q: jax.Array, k: jax.Array, v: jax.Array, *packed: jax.Array) -> jax.Array:
        return jax.vmap(row)((q * dim**-0.5).astype(q.dtype), k, v, *packed)

    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return rows(q, k, v, *packed)
    by_head = spec_for(("batch", "none", "heads", "none"), k.shape, mesh, "keys and values of attention")
    specs = (by_head,) * 3 + (PartitionSpec(by_head[0], None),) * 2
    return jax.shard_map(rows, in_specs=specs, out_specs=by_head, check_vma=False)(q, k, v, *packed)
