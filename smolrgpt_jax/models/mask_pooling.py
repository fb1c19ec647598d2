"""Mask pooling: one feature per region, the mean of the refined map under the region's mask."""

import jax
import jax.numpy as jnp

EPS = 1e-8


def mask_pooling(features: jax.Array, masks: jax.Array) -> jax.Array:
    """Weighted mean of the feature map for every region.

    features: float[B, N, D], row-major on a square grid of N = g * g; masks: float32[B, R, g, g], the region masks
    already sampled to the grid. Returns float[B, R, D] in the features' dtype; a region whose weights are all zero
    (unused, or too small to survive the sampling) pools to zeros.
    """
    weights = masks.reshape(*masks.shape[:2], -1).astype(jnp.float32)
    weights = weights / (jnp.sum(weights, -1, keepdims=True) + EPS)
    return jnp.einsum("brn,bnd->brd", weights.astype(features.dtype), features)
