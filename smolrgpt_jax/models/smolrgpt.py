"""SmolRGPT: the composition of encoder, connectors, refiners, mask pooling and decoder."""

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.models.attention import packed_attention_mask
from smolrgpt_jax.models.connector import Connector
from smolrgpt_jax.models.layers import Params, abstract, bound, initial
from smolrgpt_jax.models.mask_pooling import pool_cells
from smolrgpt_jax.models.refiner import Refiner, row_major
from smolrgpt_jax.models.siglip import VisionEncoder
from smolrgpt_jax.models.smollm import Decoder
from smolrgpt_jax.sharding import constrain_batch


class SmolRGPT(nnx.Module):
    def __init__(self, config: SmolRGPTConfig, compute: Compute, rngs: nnx.Rngs):
        vision, width = config.vision, config.decoder.width
        self.vision_encoder = VisionEncoder(vision, compute, rngs)
        self.rgb_connector = Connector(vision.width, width, config.shuffle_factor, rngs)
        self.depth_connector = Connector(vision.width, width, config.shuffle_factor, rngs)
        self.rgb_refiner, self.depth_refiner = Refiner(width, rngs), Refiner(width, rngs)
        self.decoder = Decoder(config.decoder, compute, rngs)
        self.compute = compute

    def encode(self, images: jax.Array, depths: jax.Array | None, masks: jax.Array | None) -> dict[str, jax.Array]:
        """Pictures to the features that take tokens' places.

        images, depths: float[B, P, H, W, 3]; masks: float32[B, P, R, g, g]. Without depths or masks only image tokens
        are made. Returns every intermediate, per picture (N = B * P), and `features`: float[B, F, D] in the order of
        `feature_index`: image tokens, then RGB regions, then depth regions, each picture by picture.
        """

        def by_picture(x: jax.Array) -> jax.Array:
            return x.reshape(-1, *x.shape[2:])

        if depths is None or masks is None:
            out = self.encode_pictures(by_picture(images))
        else:
            out = self.encode_regions(by_picture(images), by_picture(depths), by_picture(masks))
        features = [out[name] for name in ("image_tokens", "region_rgb", "region_depth") if name in out]
        rows = [x.reshape(images.shape[0], -1, x.shape[-1]) for x in features]
        return out | {"features": constrain_batch(jnp.concatenate(rows, axis=1))}

    def encode_pictures(self, images: jax.Array) -> dict[str, jax.Array]:
        """`encode` without regions: float[N, H, W, 3] to the intermediates."""
        seen = self.vision_encoder(images.astype(self.compute.dtype))
        return {"vision_features_rgb": seen, "image_tokens": self.rgb_connector(seen)}

    def encode_regions(self, images: jax.Array, depths: jax.Array, masks: jax.Array) -> dict[str, jax.Array]:
        """`encode` with regions: float[N, H, W, 3] twice and float32[N, R, g, g] to the intermediates."""
        out = {}
        # One pass over RGB and depth together: the same weights encode both. A picture and its depth lie side by side, so
        # that both stay on the device that has the row.
        pairs = jnp.stack([images, depths], axis=1).astype(self.compute.dtype)
        both = self.vision_encoder(constrain_batch(pairs.reshape(-1, *images.shape[1:])))
        both = both.reshape(images.shape[0], 2, *both.shape[1:])
        out["vision_features_rgb"], out["vision_features_depth"] = both[:, 0], both[:, 1]
        out["image_tokens"] = self.rgb_connector(both[:, 0])
        out["rgb_refined"], out["region_rgb"] = self.refine("rgb", out["image_tokens"], masks)
        out["depth_tokens"] = self.depth_connector(both[:, 1])
        out["depth_refined"], out["region_depth"] = self.refine("depth", out["depth_tokens"], masks)
        return out

    def refine(self, kind: Literal["rgb", "depth"], tokens: jax.Array, masks: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The refined map, float[N, g * g, D], and the regions' features, float[N, R, D], of one kind's tokens."""
        cells = (self.rgb_refiner if kind == "rgb" else self.depth_refiner).cells(tokens)
        return row_major(cells), pool_cells(cells, masks)

    def embed(self, tokens: jax.Array, feature_index: jax.Array, features: jax.Array) -> jax.Array:
        """Token embeddings with features gathered in.

        tokens: int32[B, S]; feature_index: int32[B, S], -1 for text, else the row of features: float[B, F, D] that takes
        the token's place; an index past F (a region token when only the picture was encoded) leaves the token's embedding.
        """
        embedded = self.decoder.embed(tokens)
        present = (feature_index >= 0) & (feature_index < features.shape[1])
        gathered = jnp.take_along_axis(features, jnp.where(present, feature_index, 0)[..., None], axis=1)
        return constrain_batch(jnp.where(present[..., None], gathered, embedded))

    def __call__(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Forward pass over packed rows.

        batch: tokens, positions, feature_index, picture_ids, question_ids int32[B, S]; images float[B, P, H, W, 3];
        optionally depths and region_masks. Returns the intermediates of `encode`, `hidden` float[B, S, D] and
        `logits` float32[B, S, padded vocabulary].
        """
        out = self.states(batch)
        out["logits"] = self.decoder.logits(out["hidden"])
        return out

    def states(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """What `__call__` returns, without logits."""
        out = self.encode(batch["images"], batch.get("depths"), batch.get("region_masks"))
        x = self.embed(batch["tokens"], batch["feature_index"], out["features"])
        mask = packed_attention_mask(batch["picture_ids"], batch["question_ids"])
        out["hidden"], _ = self.decoder(x, batch["positions"], mask)
        return out

    def answer_loss(self, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """`loss_sums` of a batch that has targets and perhaps weights; logits are made for the answers' tokens only.

        A row with more of them than `compute.answers` makes loss and gradients NaN, as they are not known.
        """
        hidden, targets, weights = self.states(batch)["hidden"], batch["targets"], batch.get("weights")
        most = self.compute.answers
        if not 0 < most < targets.shape[1]:
            return loss_sums(self.decoder.logits(hidden), targets, weights)
        logits = self.decoder.logits(at_answers(hidden, targets, most))
        weights = None if weights is None else at_answers(weights, targets, most)
        losses, counts = loss_sums(logits, at_answers(targets, targets, most), weights)
        return losses * jnp.where(jnp.sum(targets >= 0, -1) > most, jnp.nan, 1.0), counts


@functools.singledispatch
def make_model(config: SmolRGPTConfig, compute: Compute, rngs: nnx.Rngs) -> SmolRGPT:
    """The model of these sizes; a subclass of the configuration can register another."""
    return SmolRGPT(config, compute, rngs)


def abstract_params(config: SmolRGPTConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Names, shapes and dtypes of all parameters, without making any array."""
    return abstract(make_model, config, Compute())


def init_params(config: SmolRGPTConfig, key: jax.Array) -> Params:
    """Random parameters from one key; float32."""
    return initial(make_model, config, Compute(), key=key)


def bind(config: SmolRGPTConfig, params: Mapping[str, jax.Array], compute: Compute = Compute()) -> SmolRGPT:
    """The model over these parameters; cheap, made to be called inside jit. Raises KeyError on missing or unexpected names."""
    return bound(make_model, config, compute, params=params)


def at_answers(x: jax.Array, targets: jax.Array, most: int) -> jax.Array:
    """What x, [B, S, ...], holds where there are targets, int32[B, S] with -100 for none: [B, most, ...], in order.

    What is left over is filled from tokens without a target.
    """
    order = jnp.argsort(targets < 0, axis=1, stable=True)[:, :most]
    if x.ndim == 2:
        return jnp.take_along_axis(x, order, axis=1)
    # A product with ones and zeros is exact, and so is its gradient: rows taken one by one, and added back, take longer on a TPU.
    chosen = jax.nn.one_hot(order, x.shape[1], dtype=x.dtype)
    return jnp.einsum("bas,bsd->bad", chosen, x, precision="highest")


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
