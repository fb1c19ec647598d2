"""Connector: pixel shuffle on the patch grid, then one linear map into the decoder's width."""

import jax
from flax import nnx

from smolrgpt_jax.models.layers import Dense


def pixel_shuffle(x: jax.Array, factor: int) -> jax.Array:
    """Space to depth. x: float[B, N, C] on a square row-major grid -> float[B, N / factor^2, C * factor^2].

    Channel order of the result: row in block, column in block, channel.
    """
    batch, tokens, channels = x.shape
    side = round(tokens**0.5) // factor
    x = x.reshape(batch, side, factor, side, factor, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, side * side, factor * factor * channels)


class Connector(nnx.Module):
    def __init__(self, vision_width: int, width: int, factor: int, rngs: nnx.Rngs):
        self.proj = Dense((vision_width * factor**2,), (width,), bias=False, rngs=rngs)
        self.factor = factor

    def __call__(self, x: jax.Array) -> jax.Array:
        """Patch features float[B, N, C] -> image tokens float[B, N / factor^2, D]."""
        return self.proj(pixel_shuffle(x, self.factor))
