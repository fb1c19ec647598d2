"""Refiner: three transposed convolutions that double the resolution of the connector's map each time."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.models.layers import LayerNorm, gelu, random

NORM_EPS = 1e-6


class UpConv(nnx.Module):
    """Transposed convolution with kernel 2 and stride 2.

    Blocks do not overlap, so it is one matrix product per position that makes a 2 x 2 block.
    """

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(random(rngs, (width, 2, 2, width), 1.0 / math.sqrt(width)))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: float[..., D], one cell each -> float[4, ..., D], the four cells of its block, row by row."""
        kernel = self.kernel[...].astype(x.dtype).reshape(x.shape[-1], 4, -1)
        cells = jax.lax.platform_dependent(x, kernel, cpu=_cells_last, default=_cells_first)
        return cells + self.bias[...].astype(x.dtype)


def _cells_first(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """float[..., D] by float[D, 4, W] -> float[4, ..., W]."""
    return jnp.einsum("...d,dkw->k...w", x, kernel)


def _cells_last(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The same: CPUs would turn over that product number by number, and move whole cells in a fraction of the time."""
    return jnp.moveaxis(jnp.tensordot(x, kernel, 1), -2, 0)


class Refiner(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.up1, self.up2, self.up3 = (UpConv(width, rngs) for _ in range(3))
        self.norm1, self.norm2 = (LayerNorm(width, NORM_EPS) for _ in range(2))

    def cells(self, x: jax.Array) -> jax.Array:
        """x: float[B, N, D] on a square row-major grid -> float[4, 4, 4, B, N, D], every cell of it divided three times.

        The last division comes first. Nothing is moved, which a map in row-major order would need three times.
        """
        x = gelu(self.norm1(self.up1(x)))
        x = gelu(self.norm2(self.up2(x)))
        return gelu(self.up3(x))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: float[B, N, D] on a square row-major grid -> float[B, 64 * N, D], row-major on the grid eight times as fine."""
        return row_major(self.cells(x))


def row_major(cells: jax.Array) -> jax.Array:
    """The map of `Refiner.cells`: float[4, 4, 4, B, N, D] -> float[B, 64 * N, D]."""
    *_, batch, coarse, width = cells.shape
    side = round(coarse**0.5)
    # Row and column in the last block, in the one before, in the first; picture; coarse row and column.
    x = cells.reshape(2, 2, 2, 2, 2, 2, batch, side, side, width)
    return x.transpose(6, 7, 4, 2, 0, 8, 5, 3, 1, 9).reshape(batch, -1, width)


def mask_cells(masks: jax.Array) -> jax.Array:
    """Masks on the fine grid in the order of `Refiner.cells`: [B, R, g, g] -> [4, 4, 4, B, R, N]."""
    batch, regions, fine, _ = masks.shape
    side = fine // 8
    x = masks.reshape(batch, regions, side, 2, 2, 2, side, 2, 2, 2)
    return x.transpose(5, 9, 4, 8, 3, 7, 0, 1, 2, 6).reshape(4, 4, 4, batch, regions, -1)
