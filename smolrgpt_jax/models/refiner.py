"""Refiner: three transposed convolutions that double the resolution of the connector's map each time."""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.models.layers import LayerNorm, random

NORM_EPS = 1e-6


class UpConv(nnx.Module):
    """Transposed convolution with kernel 2 and stride 2.

    Blocks do not overlap, so it is one matrix product per position that makes a 2 x 2 block.
    """

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.kernel = nnx.Param(random(rngs, (width, 2, 2, width), 1.0 / math.sqrt(width)))
        self.bias = nnx.Param(jnp.zeros(width))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: float[B, h, w, D] -> float[B, 2 * h, 2 * w, D]."""
        batch, rows, columns, width = x.shape
        y = jnp.einsum("brcd,dijw->bricjw", x, self.kernel[...].astype(x.dtype))
        return y.reshape(batch, 2 * rows, 2 * columns, width) + self.bias[...].astype(x.dtype)


class Refiner(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.up1, self.up2, self.up3 = (UpConv(width, rngs) for _ in range(3))
        self.norm1, self.norm2 = (LayerNorm(width, NORM_EPS) for _ in range(2))

    def __call__(self, x: jax.Array) -> jax.Array:
        """x: float[B, N, D] on a square row-major grid -> float[B, 64 * N, D], row-major on the grid eight times as fine."""
        batch, tokens, width = x.shape
        side = round(tokens**0.5)
        x = x.reshape(batch, side, side, width)
        x = jax.nn.gelu(self.norm1(self.up1(x)), approximate=False)
        x = jax.nn.gelu(self.norm2(self.up2(x)), approximate=False)
        x = jax.nn.gelu(self.up3(x), approximate=False)
        return x.reshape(batch, -1, width)
