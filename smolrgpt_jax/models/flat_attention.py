"""Attention over flat heads: one Pallas kernel forward, one backward, for rows that fit a TPU's fast memory whole.

Heads of 64 numbers fill half of a TPU's lanes, and moving them apart costs more than attending. So queries, keys and values stay
as one product leaves them, float[B, S, (H + 2 G) * D]; rotation, scores, mask and softmax happen in fast memory. A row's queries
and keys are turned once, on all lanes. The backward pass does this and the softmax again: nothing but the inputs is kept.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MASKED = -1e30  # finite, so that a row with nothing to attend to gives no NaN
BLOCK = 128  # rows of queries at a time; a row's keys are taken whole
LONGEST = 1024
HEADS = 64
LANES = 128  # of a TPU's registers
FAST_MEMORY = 48 * 2**20  # bytes that a kernel may take of a TPU's fast memory, 64 MiB (v5p) or 128 (v5e, v6e)

Aside = tuple[jax.Array, ...]  # int8 mask, or tables of cosines and sines, or both, or none


class Heads(NamedTuple):
    """How many query heads and key-value heads (groups) lie side by side, and their size."""

    queries: int
    groups: int
    dim: int

    @property
    def turned(self) -> int:
        """Queries and keys lie first, in so many numbers."""
        return (self.queries + self.groups) * self.dim

    @property
    def together(self) -> int:
        """Numbers that are turned at a time: a head that fills lanes, or two."""
        return math.lcm(LANES, self.dim)


def takes(length: int, head_dims: Sequence[int] = ()) -> bool:
    """Whether the kernels take rows of this many tokens and heads of these sizes."""
    return length % BLOCK == 0 and length <= LONGEST and not any(dim % HEADS for dim in head_dims)


def flat_attention(
    qkv: jax.Array,
    heads: Heads,
    mask: jax.Array | None = None,
    angles: tuple[jax.Array, jax.Array] | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Scaled dot-product attention with grouped key-value heads; softmax in float32.

    qkv: float[B, S, (H + 2 G) * D], queries, keys, values, with H a multiple of G and S as `takes` says; mask, angles: by which
    queries and keys are turned first, both as `flat_aside` makes them. Returns float[B, S, H * D]; a query that may attend to
    nothing gets the mean of all values. `interpret` runs without a TPU.
    """
    masks = () if mask is None else (mask,)
    return _attend(qkv, (*masks, *(angles or ())), heads, interpret)


def flat_aside(mask: jax.Array, angles: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """What the kernels take of a mask, bool[B, S, S], True = may attend, and of cosines and sines, float32[B, S, D / 2].

    Made once for all layers, which a compiler left alone does in each of them.
    """
    dim = 2 * angles[0].shape[-1]
    cos, sin = (jnp.tile(a, 2 * math.lcm(LANES, dim) // dim) for a in angles)
    mask, cos, sin = jax.lax.optimization_barrier((mask.astype(jnp.int8), cos, sin))
    return mask, (cos, sin)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _attend(qkv: jax.Array, aside: Aside, heads: Heads, interpret: bool) -> jax.Array:
    return _run(_forward, (qkv,), aside, heads, heads.queries * heads.dim, [], interpret)


def _kept(qkv: jax.Array, aside: Aside, heads: Heads, interpret: bool) -> tuple[jax.Array, Any]:
    return _attend(qkv, aside, heads, interpret), (qkv, aside)


def _gradients(heads: Heads, interpret: bool, kept: Any, gradient: jax.Array) -> tuple[Any, ...]:
    qkv, aside = kept
    sums = [pltpu.VMEM((qkv.shape[1], width), jnp.float32) for width in (_padded(heads), heads.groups * heads.dim)]
    found = _run(_backward, (qkv, gradient), aside, heads, qkv.shape[2], sums, interpret)
    # Neither mask nor positions are learned.
    return found, tuple(
        np.zeros(a.shape, jax.dtypes.float0) if a.dtype == jnp.int8 else jnp.zeros_like(a) for a in aside
    )


_attend.defvjp(_kept, _gradients)


def _padded(heads: Heads) -> int:
    """The numbers that are turned, and as many more as fill the last ones that are turned together."""
    return -(-heads.turned // heads.together) * heads.together


def _run(
    kernel: Callable[..., None],
    given: Sequence[jax.Array],
    aside: Aside,
    heads: Heads,
    width: int,
    scratch: Sequence[Any],
    interpret: bool,
) -> jax.Array:
    """Runs a kernel over rows and, within a row, blocks of queries; the result is `width` wide."""
    batch, length, _ = given[0].shape

    def row(x: Any) -> pl.BlockSpec:
        return pl.BlockSpec((1, *x.shape[1:]), lambda b, i: (b, 0, 0))

    specs = [row(x) for x in (*given, *aside)]
    if masked := len(aside) % 2:
        specs[len(given)] = pl.BlockSpec((1, BLOCK, length), lambda b, i: (b, i, 0))
    result = jax.ShapeDtypeStruct((batch, length, width), given[0].dtype)
    rotated = len(aside) > 1
    turned = [pltpu.VMEM((length, _padded(heads)), given[0].dtype)] if rotated else []
    return pl.pallas_call(
        functools.partial(kernel, heads=heads, masked=bool(masked), rotated=rotated),
        grid=(batch, length // BLOCK),
        in_specs=specs,
        out_specs=row(result),
        out_shape=result,
        scratch_shapes=[*turned, *scratch],
        compiler_params=pltpu.CompilerParams(vmem_limit_bytes=FAST_MEMORY),
        interpret=interpret,
        name=f"flat_attention{kernel.__name__}",
    )(*given, *aside)


def _forward(ref: Any, *rest: Any, heads: Heads, masked: bool, rotated: bool) -> None:
    here, seen, qk, [out_ref] = _read(ref, rest, heads, masked, rotated, 1)
    for head, key, value, _ in _places(heads):
        weights, total = _softmax(qk[here, head], qk[:, key], seen)
        v = ref[0, :, value]
        out_ref[0, here, head] = (_dot(weights.astype(v.dtype), v, 1, 0) / total).astype(out_ref.dtype)


def _backward(ref: Any, out_ref: Any, *rest: Any, heads: Heads, masked: bool, rotated: bool) -> None:
    here, seen, qk, [found, dqk_sum, dv_sum] = _read(ref, rest, heads, masked, rotated, 3)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        dqk_sum[...] = jnp.zeros_like(dqk_sum)
        dv_sum[...] = jnp.zeros_like(dv_sum)

    for head, key, value, group in _places(heads):
        q, k = qk[here, head], qk[:, key]
        v, d_out = ref[0, :, value], out_ref[0, here, head]
        weights, total = _softmax(q, k, seen)
        weights = weights / total
        d_weights = _dot(d_out, v, 1, 1)
        d_scores = weights * (d_weights - jnp.sum(weights * d_weights, axis=1, keepdims=True)) * heads.dim**-0.5
        if seen is not None:  # of queries that may attend to nothing
            d_scores = jnp.where(seen, d_scores, 0.0)
        d_scores = d_scores.astype(q.dtype)
        dqk_sum[here, head] = _dot(d_scores, k, 1, 0)
        dqk_sum[:, key] += _dot(d_scores, q, 0, 0)
        dv_sum[:, group] += _dot(weights.astype(d_out.dtype), d_out, 0, 0)

    @pl.when(pl.program_id(1) == pl.num_programs(1) - 1)
    def _() -> None:
        for start in range(0, heads.turned, heads.together):
            some = dqk_sum[:, start : start + heads.together]
            if rotated:
                cos, sin = (table[0] for table in rest[masked : masked + 2])
                some = some * cos - _quarter_turn(some * sin, heads.dim)
            own = min(heads.together, heads.turned - start)
            found[0, :, start : start + own] = some[:, :own].astype(found.dtype)
        found[0, :, heads.turned :] = dv_sum[...].astype(found.dtype)


def _places(heads: Heads) -> list[tuple[slice, ...]]:
    """Where every query head, its keys, its values and, in the sum of the values' gradients, its group lie."""
    found = []
    for head in range(heads.queries):
        group = head * heads.groups // heads.queries
        starts = head, heads.queries + group, heads.queries + heads.groups + group, group
        found.append(tuple(slice(start * heads.dim, (start + 1) * heads.dim) for start in starts))
    return found


def _read(
    ref: Any, rest: Sequence[Any], heads: Heads, masked: bool, rotated: bool, results: int
) -> tuple[Any, Any, Any, list[Any]]:
    """The rows of the block, their mask, the row's queries and keys, turned, and the refs of results and sums.

    rest: mask, tables, results[0], what queries and keys are turned into, results[1:]; the row's first block turns them.
    """
    here = pl.ds(pl.multiple_of(pl.program_id(1) * BLOCK, BLOCK), BLOCK)
    seen = rest[0][0].astype(jnp.int32) != 0 if masked else None
    outs = list(rest[-results - rotated :])
    if not rotated:
        return here, seen, ref.at[0], outs
    turned = outs.pop(1)

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        cos, sin = (table[0] for table in rest[masked : masked + 2])
        for start in range(0, heads.turned, heads.together):
            lanes = slice(start, start + heads.together)
            some = ref[0, :, lanes].astype(jnp.float32)
            turned[:, lanes] = (some * cos + _quarter_turn(some, heads.dim) * sin).astype(turned.dtype)

    return here, seen, turned, outs


def _quarter_turn(x: jax.Array, dim: int) -> jax.Array:
    """(-second half, first half) of every head side by side: float32[S, one or two heads of D]."""
    first = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1) % dim < dim // 2
    return jnp.where(first, -pltpu.roll(x, x.shape[1] - dim // 2, 1), pltpu.roll(x, dim // 2, 1))


def _softmax(q: jax.Array, k: jax.Array, seen: jax.Array | None) -> tuple[jax.Array, jax.Array]:
    """Weights that are not yet divided by their sum, float32[BLOCK, S], and the sum."""
    scores = _dot(q, k, 1, 1) * q.shape[1] ** -0.5
    if seen is not None:
        scores = jnp.where(seen, scores, MASKED)
    weights = jnp.exp(scores - jnp.max(scores, axis=1, keepdims=True))
    return weights, jnp.sum(weights, axis=1, keepdims=True)


def _dot(a: jax.Array, b: jax.Array, of_a: int, of_b: int) -> jax.Array:
    """The product over these dimensions, float32; float32 factors are not rounded."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jax.lax.dot_general(
        a, b, (((of_a,), (of_b,)), ((), ())), precision=precision, preferred_element_type=jnp.float32
    )
