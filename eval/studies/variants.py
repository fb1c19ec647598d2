"""Models that studies train beside the published one: what depth has of its own, refiners, picture tokens, region extent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx

from eval.studies.region_extent import MEASURES, OCTAVES, RegionExtent
from smolrgpt_jax import flops
from smolrgpt_jax.config import REFINER_STAGES, Compute, SmolRGPTConfig
from smolrgpt_jax.errors import ConfigError
from smolrgpt_jax.models.connector import Connector
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.refiner import Refiner
from smolrgpt_jax.models.siglip import VisionEncoder
from smolrgpt_jax.models.smollm import Decoder
from smolrgpt_jax.models.smolrgpt import SmolRGPT, make_model
from smolrgpt_jax.training.stages import STAGES

DepthPathway = Literal["separate", "shared_connector", "shared_refiner", "none"]

# As the published last stage; every part is trained from what the study begins with.
STAGE = dataclasses.replace(
    STAGES["sft"],
    name="study",
    groups=tuple(
        dataclasses.replace(group, pattern="((rgb|depth)_refiner|region_extent)/")
        if group.name == "refiners"
        else group
        for group in STAGES["sft"].groups
    ),
    after=(),
)


@dataclass(frozen=True)
class VariantConfig(SmolRGPTConfig):
    """The published model with parts left out or added.

    Attributes:
      depth_pathway: what depth has of its own after the encoder; what it has not, it shares with RGB. "none": it is not seen,
        depth tokens are zeros.
      refiners: whether regions are pooled from refined maps, or from the connectors', each cell repeated to the masks' size.
      picture_tokens: whether the image tokens hold the picture or zeros.
      region_extent: whether place and size of the mask, and the depth under it, go into a region's RGB token.

    Raises ConfigError on construction for a depth pathway that does not exist.
    """

    depth_pathway: DepthPathway = "separate"
    refiners: bool = True
    picture_tokens: bool = True
    region_extent: bool = False

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

    rgb_refiner = staticmethod(repeat_cells)

    def depth_refiner(self, x: jax.Array) -> jax.Array:
        return self.rgb_refiner(x)

    def depth_connector(self, x: jax.Array) -> jax.Array:
        return self.rgb_connector(x)

    def encode(
        self, images: jax.Array, depths: jax.Array | None, region_masks: jax.Array | None
    ) -> dict[str, jax.Array]:
        out = super().encode(images, depths, region_masks)
        if not self.config.picture_tokens:
            tokens = images.shape[1] * self.config.image_tokens
            out["features"] = out["features"].at[:, :tokens].set(0)
        return out

    def encode_regions(self, images: jax.Array, depths: jax.Array, masks: jax.Array) -> dict[str, jax.Array]:
        if self.config.depth_pathway == "none":
            depths = None
            out = self.encode_pictures(images)
            out["rgb_refined"] = self.rgb_refiner(out["image_tokens"])
            out["region_rgb"] = mask_pooling(out["rgb_refined"], masks)
            out["region_depth"] = jnp.zeros_like(out["region_rgb"])
        else:
            out = super().encode_regions(images, depths, masks)
        if self.region_extent is not None:
            out["region_rgb"] += self.region_extent(masks, depths).astype(self.compute.dtype)
        return out


@make_model.register
def _(config: VariantConfig, compute: Compute, rngs: nnx.Rngs) -> Variant:
    return Variant(config, compute, rngs)


@flops.row_parts.register
def _(config: VariantConfig, tokens: int, pictures: int, regions: int) -> dict[str, flops.Part]:
    parts = flops.row_parts.dispatch(SmolRGPTConfig)(config, tokens, pictures, regions)
    if not regions:
        return parts
    for part in ("connector", "refiner"):
        if config.depth_pathway == f"shared_{part}":
            parts[f"depth_{part}"] = dataclasses.replace(parts[f"depth_{part}"], right=parts[f"rgb_{part}"].right)
    if config.depth_pathway == "none":
        parts = {name: part for name, part in parts.items() if not name.startswith("depth_")}
        for name in ("patches", "encoder"):
            part = parts[name]
            parts[name] = dataclasses.replace(part, flops=part.flops / 2, again=part.again / 2)
    if not config.refiners:
        parts = {name: part for name, part in parts.items() if not name.endswith("_refiner")}
        for kind in ("rgb", "depth"):
            if f"{kind}_pooling" in parts:
                parts[f"{kind}_pooling"] = dataclasses.replace(parts[f"{kind}_pooling"], left=(f"{kind}_connector",))
    if config.region_extent:
        waves = len(MEASURES) * (1 + 2 * OCTAVES)
        projected = 2 * pictures * regions * waves * config.decoder.width
        parts["region_extent"] = flops.Part(projected, (), ("region_extent/proj/kernel",))
        parts["blocks"] = dataclasses.replace(parts["blocks"], left=(*parts["blocks"].left, "region_extent"))
    return parts
