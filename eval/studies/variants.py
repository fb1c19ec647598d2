"""Models that studies train beside the published one: what depth has of its own, refiners, picture tokens, region extent."""

from dataclasses import dataclass, replace
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax import flops
from smolrgpt_jax.config import REFINER_STAGES, Compute, SmolRGPTConfig
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.models.connector import Connector
from smolrgpt_jax.models.layers import Dense
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.refiner import Refiner
from smolrgpt_jax.models.siglip import VisionEncoder
from smolrgpt_jax.models.smollm import Decoder
from smolrgpt_jax.models.smolrgpt import SmolRGPT, make_model
from smolrgpt_jax.training.stages import STAGES, Stage

DepthPathway = Literal["separate", "shared_connector", "shared_refiner", "none"]

# The published last stage, whatever came before; region extent is trained as the refiners are.
REFINERS = "((rgb|depth)_refiner|region_extent)/"
GROUPS = tuple(replace(g, pattern=REFINERS) if g.name == "refiners" else g for g in STAGES["sft"].groups)
STAGE = Stage("study", GROUPS)


@dataclass(frozen=True)
class VariantConfig(SmolRGPTConfig):
    """The published model with parts left out or added; raises ConfigError for a depth pathway that does not exist."""

    # What depth has of its own after the encoder; what it has not, it shares with RGB. "none": it is not seen, depth tokens are zeros.
    depth_pathway: DepthPathway = "separate"
    # Whether regions are pooled from refined maps, or from the connectors', each cell repeated to the masks' size.
    refiners: bool = True
    picture_tokens: bool = True  # whether the image tokens hold the picture or zeros
    region_extent: bool = False  # place and size of the mask, and the depth under it, go into a region's RGB token

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth_pathway not in get_args(DepthPathway):
            raise ConfigError(f"depth_pathway {self.depth_pathway!r} is not one of {', '.join(get_args(DepthPathway))}")


def repeat_cells(x: jax.Array) -> jax.Array:
    """What takes the refiner's place where it is left out: every cell repeated over the finer grid.

    x: float[B, N, D] on a square row-major grid -> float[B, 64 * N, D], row-major on the grid eight times as fine.
    """
    batch, tokens, width = x.shape
    side, times = round(tokens**0.5), 2**REFINER_STAGES
    grid = x.reshape(batch, side, side, width)
    return jnp.repeat(jnp.repeat(grid, times, axis=1), times, axis=2).reshape(batch, -1, width)


MEASURES = ("centre across", "centre down", "width", "height", "lower end", "depth")
OCTAVES = 5  # of the waves that let a linear map tell nearly equal numbers apart


def region_measures(masks: jax.Array, depths: jax.Array | None) -> jax.Array:
    """Where a region lies, how large it is and how deep it is there: what the mean under its mask forgets.

    masks: float32[B, R, g, g], sampled to the grid; depths: float[B, H, W, 3], or None for a depth of 0. Returns float32[B, R, 6]
    in the order of MEASURES, zeros for an empty mask: places and lengths are shares of the picture, 0 to 1, the depth is the mean
    of the depth picture's values under the mask.
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
    """The measures of a region as a vector of the decoder's width, which is added to the region's RGB token."""

    def __init__(self, width: int, rngs: nnx.Rngs):
        self.proj = Dense((len(MEASURES) * (1 + 2 * OCTAVES),), (width,), bias=False, rngs=rngs, init_scale=0.1)

    def __call__(self, masks: jax.Array, depths: jax.Array | None) -> jax.Array:
        """masks: float32[B, R, g, g]; depths: float[B, H, W, 3] or None -> float32[B, R, D], zeros for an empty mask."""
        measures = region_measures(masks, depths)
        phases = jnp.pi * measures[..., None] * 2.0 ** jnp.arange(OCTAVES)
        waves = jnp.concatenate([measures[..., None], jnp.sin(phases), jnp.cos(phases)], axis=-1)
        present = (masks.sum((-2, -1)) > 0)[..., None]
        return self.proj(waves.reshape(*measures.shape[:2], -1)) * present


class Variant(SmolRGPT):
    def __init__(self, config: VariantConfig, compute: Compute, rngs: nnx.Rngs):
        vision, width, pathway = config.vision, config.decoder.width, config.depth_pathway
        self.vision_encoder = VisionEncoder(vision, compute, rngs)
        self.rgb_connector = Connector(vision.width, width, config.shuffle_factor, rngs)
        if pathway in ("separate", "shared_refiner"):
            self.depth_connector = Connector(vision.width, width, config.shuffle_factor, rngs)
        if config.refiners:
            self.rgb_refiner = Refiner(width, rngs)
            if pathway in ("separate", "shared_connector"):
                self.depth_refiner = Refiner(width, rngs)
        self.region_extent = RegionExtent(width, rngs) if config.region_extent else None
        self.decoder = Decoder(config.decoder, compute, rngs)
        self.config, self.compute = config, compute

    # What stands in for a module that a variant does not have.

    def refine(self, kind: Literal["rgb", "depth"], tokens: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
        if not self.config.refiners:
            repeated = repeat_cells(tokens)
            return repeated, mask_pooling(repeated, masks)
        return super().refine(kind if hasattr(self, f"{kind}_refiner") else "rgb", tokens, masks)

    def depth_connector(self, x: jax.Array) -> jax.Array:
        return self.rgb_connector(x)

    def encode(self, images: jax.Array, depths: jax.Array | None, masks: jax.Array | None) -> dict[str, jax.Array]:
        out = super().encode(images, depths, masks)
        if not self.config.picture_tokens:
            tokens = images.shape[1] * self.config.image_tokens
            out["features"] = out["features"].at[:, :tokens].set(0)
        return out

    def encode_regions(self, images: jax.Array, depths: jax.Array, masks: jax.Array) -> dict[str, jax.Array]:
        if self.config.depth_pathway == "none":
            depths = None
            out = self.encode_pictures(images)
            out["rgb_refined"], out["region_rgb"] = self.refine("rgb", out["image_tokens"], masks)
            out["region_depth"] = jnp.zeros_like(out["region_rgb"])
        else:
            out = super().encode_regions(images, depths, masks)
        if self.region_extent is not None:
            out["region_rgb"] += self.region_extent(masks, depths).astype(self.compute.dtype)
        return out


make_model.register(VariantConfig, Variant)


@flops.row_parts.register
def _(config: VariantConfig, tokens: int, pictures: int, regions: int, answers: int = 0) -> dict[str, flops.Part]:
    parts = flops.row_parts.dispatch(SmolRGPTConfig)(config, tokens, pictures, regions, answers)
    if not regions:
        return parts
    for kind in ("connector", "refiner"):
        if config.depth_pathway == f"shared_{kind}":
            parts[f"depth_{kind}"] = replace(parts[f"depth_{kind}"], right=parts[f"rgb_{kind}"].right)
    if config.depth_pathway == "none":
        parts = {name: part for name, part in parts.items() if not name.startswith("depth_")}
        for name in ("patches", "encoder"):
            part = parts[name]
            parts[name] = replace(part, flops=part.flops / 2, again=part.again / 2)
    if not config.refiners:
        for kind in ("rgb", "depth"):
            if parts.pop(f"{kind}_refiner", None):
                parts[f"{kind}_pooling"] = replace(parts[f"{kind}_pooling"], left=(f"{kind}_connector",))
    if config.region_extent:
        waves = len(MEASURES) * (1 + 2 * OCTAVES)
        projected = 2 * pictures * regions * waves * config.decoder.width
        parts["region_extent"] = flops.Part(projected, (), ("region_extent/proj/kernel",))
        parts["blocks"] = replace(parts["blocks"], left=(*parts["blocks"].left, "region_extent"))
    return parts
