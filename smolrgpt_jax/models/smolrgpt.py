"""SmolRGPT: the composition of encoder, connectors, refiners, mask pooling and decoder."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.attention import packed_attention_mask, packed_spans
from smolrgpt_jax.models.connector import Connector
from smolrgpt_jax.models.layers import Params, bind_params, flat_params
from smolrgpt_jax.models.mask_pooling import mask_pooling
from smolrgpt_jax.models.refiner import Refiner, repeat_cells
from smolrgpt_jax.models.region_extent import RegionExtent
from smolrgpt_jax.models.siglip import VisionEncoder
from smolrgpt_jax.models.smollm import Decoder
from smolrgpt_jax.sharding import constrain_batch


class SmolRGPT(nnx.Module):
    def __init__(self, config: SmolRGPTConfig, compute: Compute, rngs: nnx.Rngs):
        width = config.decoder.width
        self.vision_encoder = VisionEncoder(config.vision, compute, rngs)
        self.rgb_connector = Connector(config.vision.width, width, config.shuffle_factor, rngs)
        if config.depth_pathway in ("separate", "shared_refiner"):
            self.depth_connector = Connector(config.vision.width, width, config.shuffle_factor, rngs)
        if config.refiners:
            self.rgb_refiner = Refiner(width, rngs)
            if config.depth_pathway in ("separate", "shared_connector"):
                self.depth_refiner = Refiner(width, rngs)
        if config.region_extent:
            self.region_extent = RegionExtent(width, rngs)
        self.decoder = Decoder(config.decoder, compute, rngs)
        self.compute = compute
        self.depth_pathway, self.picture_tokens = config.depth_pathway, config.picture_tokens

    def encode(
        self, images: jax.Array, depths: jax.Array | None, region_masks: jax.Array | None
    ) -> dict[str, jax.Array]:
        """Pictures to the features that take tokens' places.

        images, depths: float[B, P, H, W, 3]; region_masks: float32[B, P, R, g, g]. Without depths or masks only image tokens
        are made. Returns every intermediate, per picture (N = B * P), and `features`: float[B, F, D] in the order of
        `feature_index`: image tokens, then RGB regions, then depth regions, each picture by picture.
        """
        batch, pictures = images.shape[:2]
        flat = images.reshape(batch * pictures, *images.shape[2:]).astype(self.compute.dtype)
        regions = depths is not None and region_masks is not None
        with_depth = regions and self.depth_pathway != "none"
        if with_depth:
            # One pass over RGB and depth together: the same weights encode both. A picture and its depth lie side by
            # side, so that both stay on the device that has the row.
            pairs = jnp.stack([flat, depths.reshape(flat.shape).astype(self.compute.dtype)], axis=1)
            both = self.vision_encoder(constrain_batch(pairs.reshape(-1, *flat.shape[1:])))
            both = both.reshape(flat.shape[0], 2, *both.shape[1:])
            rgb_features, depth_features = both[:, 0], both[:, 1]
        else:
            rgb_features = self.vision_encoder(flat)
        out = {"vision_features_rgb": rgb_features, "image_tokens": self.rgb_connector(rgb_features)}
        parts = [out["image_tokens"] if self.picture_tokens else jnp.zeros_like(out["image_tokens"])]
        if regions:
            masks = region_masks.reshape(batch * pictures, *region_masks.shape[2:])
            rgb_refiner = getattr(self, "rgb_refiner", repeat_cells)
            out["rgb_refined"] = rgb_refiner(out["image_tokens"])
            out["region_rgb"] = mask_pooling(out["rgb_refined"], masks)
            out["region_depth"] = jnp.zeros_like(out["region_rgb"])
        if with_depth:
            # What depth has not of its own it shares with RGB.
            out["vision_features_depth"] = depth_features
            out["depth_tokens"] = getattr(self, "depth_connector", self.rgb_connector)(depth_features)
            out["depth_refined"] = getattr(self, "depth_refiner", rgb_refiner)(out["depth_tokens"])
            out["region_depth"] = mask_pooling(out["depth_refined"], masks)
        if regions and hasattr(self, "region_extent"):
            extent = self.region_extent(masks, depths.reshape(flat.shape) if with_depth else None)
            out["region_rgb"] += extent.astype(self.compute.dtype)
        if regions:
            parts += [out["region_rgb"], out["region_depth"]]
        width = parts[0].shape[-1]
        out["features"] = constrain_batch(jnp.concatenate([p.reshape(batch, -1, width) for p in parts], axis=1))
        return out

    def embed(self, tokens: jax.Array, feature_index: jax.Array, features: jax.Array) -> jax.Array:
        """Token embeddings with features gathered in.

        tokens: int32[B, S]; feature_index: int32[B, S], -1 for text, else the row of features: float[B, F, D] that takes
        the token's place; an index past F (a region token when only the picture was encoded) leaves the token's embedding.
        """
        embedded = self.decoder.embed(tokens, features.dtype)
        present = (feature_index >= 0) & (feature_index < features.shape[1])
        gathered = jnp.take_along_axis(features, jnp.where(present, feature_index, 0)[..., None], axis=1)
        return constrain_batch(jnp.where(present[..., None], gathered, embedded))

    def __call__(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Forward pass over packed rows.

        batch: tokens, positions, feature_index, picture_ids, question_ids int32[B, S]; images float[B, P, H, W, 3];
        optionally depths and region_masks. Returns the intermediates of `encode`, `hidden` float[B, S, D] and
        `logits` float32[B, S, padded vocabulary].
        """
        out = self.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))
        x = self.embed(batch["tokens"], batch["feature_index"], out["features"])
        make_mask = packed_spans if self.compute.attention == "splash" else packed_attention_mask
        mask = make_mask(batch["picture_ids"], batch["question_ids"])
        out["hidden"], _ = self.decoder(x, batch["positions"], mask)
        out["logits"] = self.decoder.logits(out["hidden"])
        return out


@functools.lru_cache(maxsize=16)
def _abstract(config: SmolRGPTConfig, compute: Compute) -> tuple[Any, dict[str, jax.ShapeDtypeStruct]]:
    graphdef, state = nnx.split(nnx.eval_shape(lambda: SmolRGPT(config, compute, nnx.Rngs(0))), graph=False)
    return graphdef, flat_params(state)


def abstract_params(config: SmolRGPTConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and dtypes of all parameters, without making any array."""
    return dict(_abstract(config, Compute())[1])


def init_params(config: SmolRGPTConfig, key: jax.Array) -> Params:
    """Random parameters from one key; float32."""
    return flat_params(nnx.split(SmolRGPT(config, Compute(), nnx.Rngs(key)), graph=False)[1])


def bind(config: SmolRGPTConfig, params: Mapping[str, jax.Array], compute: Compute = Compute()) -> SmolRGPT:
    """The model over these parameters; cheap, made to be called inside jit. Raises KeyError on missing or unexpected names."""
    return bind_params(*_abstract(config, compute), params)


def loss_sums(logits: jax.Array, targets: jax.Array, weights: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Summed cross-entropy and number of answer tokens, per row: float32[B], float32[B].

    logits: float32[B, S, V]; targets: int32[B, S], -100 where there is no loss; weights: float32[B, S] of the tokens, in the sum
    and in the number, None for 1. The training loss is the ratio of the sums over the whole batch, the mean over answer tokens.
    """
    counted = targets >= 0
    labels = jnp.where(counted, targets, 0)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - picked
    if weights is None:
        return jnp.sum(jnp.where(counted, losses, 0.0), -1), jnp.sum(counted, -1).astype(jnp.float32)
    return jnp.sum(jnp.where(counted, weights * losses, 0.0), -1), jnp.sum(jnp.where(counted, weights, 0.0), -1)
