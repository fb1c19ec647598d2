"""Region extent: what the mean under a mask forgets, namely where the mask lies, how large it is and how deep it is there."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.models.layers import Dense

MEASURES = ("centre across", "centre down", "width", "height", "lower end", "depth")
OCTAVES = 5  # of the waves that let a linear map tell nearly equal numbers apart


def region_measures(masks: jax.Array, depths: jax.Array | None) -> jax.Array:
    """Measures of every region, in the order of MEASURES.

    Places and lengths are shares of the picture, 0 to 1; the depth is the mean of the depth picture's values under the mask.

    masks: float32[B, R, g, g], region masks sampled to the grid; depths: float[B, H, W, 3], or None for no depth, which is then 0.
    Returns float32[B, R, 6]; zeros for a region whose mask is empty.
    """
    grid = masks.shape[-1]
    weights = masks.astype(jnp.float32)
    total = weights.sum((-2, -1))
    present = total > 0
    share = weights / jnp.where(present, total, 1.0)[..., None, None]
    middles = (jnp.arange(grid) + 0.5) / grid
    columns, rows = weights.max(-2), weights.max(-1)
    measures = [
        jnp.einsum("brij,j->br", share, middles),
        jnp.einsum("brij,i->br", share, middles),
        columns.mean(-1),
        rows.mean(-1),
        jnp.max(rows * (middles + 0.5 / grid), axis=-1),
    ]
    if depths is None:
        measures.append(jnp.zeros_like(total))
    else:
        grey = depths.astype(jnp.float32).mean(-1)
        coarse = jax.image.resize(grey, (grey.shape[0], grid, grid), "linear")
        measures.append(jnp.einsum("brij,bij->br", share, coarse))
    return jnp.stack(measures, axis=-1) * present[..., None]


class RegionExtent(nnx.Module):
    """The measures of a region as a vector of the decoder's width, to be added to the region's RGB token."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.proj = Dense((len(MEASURES) * (1 + 2 * OCTAVES),), (width,), bias=False, rngs=rngs, init_scale=0.1)

    def __call__(self, masks: jax.Array, depths: jax.Array | None) -> jax.Array:
        """masks: float32[B, R, g, g]; depths: float[B, H, W, 3] or None -> float32[B, R, D], zeros for an empty mask."""
        measures = region_measures(masks, depths)
        phases = jnp.pi * measures[..., None] * 2.0 ** jnp.arange(OCTAVES)
        waves = jnp.concatenate([measures[..., None], jnp.sin(phases), jnp.cos(phases)], axis=-1)
        present = (masks.sum((-2, -1)) > 0)[..., None]
        return self.proj(waves.reshape(*measures.shape[:2], -1)) * present
