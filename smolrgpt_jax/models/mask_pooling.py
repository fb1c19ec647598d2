"""Mask pooling: one feature per region, the mean of the refined map under the region's mask."""

import jax
import jax.numpy as jnp

from smolrgpt_jax.models.refiner import mask_cells

EPS = 1e-8


def mask_pooling(features: jax.Array, masks: jax.Array) -> jax.Array:
    """Weighted mean of the feature map for every region.

    features: float[B, N, D], row-major on a square grid of N = g * g; masks: float32[B, R, g, g], the region masks
    already sampled to the grid. Returns float[B, R, D] in the features' dtype; a region whose weights are all zero
    (unused, or too small to survive the sampling) pools to zeros.
    """
    weights = _weights(masks).reshape(*masks.shape[:2], -1)
    return jnp.einsum("brn,bnd->brd", weights.astype(features.dtype), features)


def pool_cells(cells: jax.Array, masks: jax.Array) -> jax.Array:
    """The same of a map in the order of `Refiner.cells`: float[4, 4, 4, B, N, D] and float32[B, R, g, g] to float[B, R, D]."""
    return jnp.einsum("xyzbrn,xyzbnd->brd", mask_cells(_weights(masks)).astype(cells.dtype), cells)


def _weights(masks: jax.Array) -> jax.Array:
    masks = masks.astype(jnp.float32)
    return masks / (jnp.sum(masks, (-2, -1), keepdims=True) + EPS)
