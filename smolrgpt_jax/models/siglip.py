"""SigLIP vision encoder: patches, learned positions, pre-norm blocks, final norm; no pooling head."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from smolrgpt_jax.config import AttentionImplementation, Compute, VisionConfig
from smolrgpt_jax.models import flat_attention
from smolrgpt_jax.models.attention import attend_flat, attention
from smolrgpt_jax.models.layers import Dense, LayerNorm, run_blocks, stack_blocks

# For a model trained from scratch (pretrained weights replace both): a large position table lets it localise early, and
# patch features must not drown in it.
POSITION_INIT_SCALE = 2.0
PATCH_INIT_SCALE = 2.0


def sincos_positions(grid: int, width: int) -> np.ndarray:
    """Two-dimensional sine-cosine table: float32[grid * grid, width], row-major.

    The longest wave is four times the grid, so that every channel varies over a small grid too; the usual one of 10000 patches
    leaves most channels constant there.
    """
    frequencies = (np.pi / (2 * grid)) ** (np.arange(width // 4) / (width // 4))
    rows, columns = np.meshgrid(np.arange(grid), np.arange(grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (rows, columns)]
    return np.concatenate([f(a) for a in angles for f in (np.sin, np.cos)], axis=1).astype(np.float32)


class VisionBlock(nnx.Module):
    def __init__(self, config: VisionConfig, rngs: nnx.Rngs):
        width, heads = config.width, config.heads
        residual_scale = (2 * config.layers) ** -0.5
        self.ln1 = LayerNorm(width, config.layer_norm_eps)
        self.qkv_proj = Dense((width,), (3, heads, width // heads), bias=True, rngs=rngs)
        self.out_proj = Dense((heads, width // heads), (width,), bias=True, rngs=rngs, init_scale=residual_scale)
        self.ln2 = LayerNorm(width, config.layer_norm_eps)
        self.fc1 = Dense((width,), (config.mlp_width,), bias=True, rngs=rngs)
        self.fc2 = Dense((config.mlp_width,), (width,), bias=True, rngs=rngs, init_scale=residual_scale)

    def __call__(self, x: jax.Array, implementation: AttentionImplementation) -> jax.Array:
        """x: float[B, N, D] -> float[B, N, D]."""
        h = self.ln1(x)
        if implementation == "flat":
            _, heads, dim = self.qkv_proj.out_shape
            x = x + self.out_proj.flat(attend_flat(self.qkv_proj.flat(h), flat_attention.Heads(heads, heads, dim)))
        else:
            qkv = self.qkv_proj(h)
            q, k, v = (qkv[:, :, i] for i in range(3))
            x = x + self.out_proj(attention(q, k, v, implementation=implementation))
        return x + self.fc2(jax.nn.gelu(self.fc1(self.ln2(x)), approximate=True))


class VisionEncoder(nnx.Module):
    """Pictures to patch features."""

    def __init__(self, config: VisionConfig, compute: Compute, rngs: nnx.Rngs):
        patch, width = config.patch_size, config.width
        positions = POSITION_INIT_SCALE * sincos_positions(config.grid, width)
        self.patch_embedding = Dense((patch, patch, 3), (width,), bias=True, rngs=rngs, init_scale=PATCH_INIT_SCALE)
        self.position_embedding = nnx.Param(jnp.asarray(positions))
        self.blocks = stack_blocks(lambda r: VisionBlock(config, r), config.layers, rngs)
        self.norm = LayerNorm(width, config.layer_norm_eps)
        self.grid, self.patch_size = config.grid, patch
        self.compute = compute

    def __call__(self, images: jax.Array) -> jax.Array:
        """images: float[B, H, W, 3] in [-1, 1] -> features float[B, grid * grid, D], row-major, in the images' dtype."""
        batch, grid, patch = images.shape[0], self.grid, self.patch_size
        patches = images.reshape(batch, grid, patch, grid, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        x = self.patch_embedding(patches.reshape(batch, grid * grid, patch, patch, 3))
        x = x + self.position_embedding[...].astype(x.dtype)

        def step(block: VisionBlock, x: jax.Array) -> tuple[jax.Array, None]:
            fits = flat_attention.takes(x.shape[1])
            return block(x, "xla" if self.compute.attention == "flat" and not fits else self.compute.attention), None

        x, _ = run_blocks(self.blocks, x, step, self.compute)
        return self.norm(x)
