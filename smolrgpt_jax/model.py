"""`load(path)`: a model with NumPy in and out, from a PyTorch folder or one of our checkpoints."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from smolrgpt_jax.checkpoint.load import Checkpoint, read_checkpoint
from smolrgpt_jax.config import Compute, SmolRGPTConfig
from smolrgpt_jax.data.masks import resample
from smolrgpt_jax.generation.decode import decode_weights, generate, stream
from smolrgpt_jax.generation.sampling import GREEDY, Sampling
from smolrgpt_jax.models.smolrgpt import Params, bind

EOS_ID = 2  # <|im_end|> in SmolLM2's tokenizer


@functools.partial(jax.jit, static_argnames=("config", "compute"))
def _forward(
    config: SmolRGPTConfig, compute: Compute, params: Params, batch: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    return bind(config, params, compute)(batch)


@dataclass(frozen=True)
class Model(Checkpoint):
    """A checkpoint that computes, as `compute` says: forward pass and greedy or sampled answers, NumPy in and out."""

    compute: Compute = Compute()

    def forward(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Logits and every intermediate for a batch of conversations.

        input_ids, attention_mask: int[B, S]; images: float32[B, H, W, 3] in [-1, 1]; depths: the same shape or None;
        masks: B arrays [Hm, Wm, R] (bool or 0/1) of any size and number of regions, None for a row without regions; or None.
        Without depths or masks only the image tokens are replaced. Returns float32 arrays: logits [B, S, vocab];
        vision_features_rgb/_depth [B, N, Dv]; image_tokens, depth_tokens [B, T, D]; rgb_refined, depth_refined [B, g * g, D];
        region_rgb, region_depth [R1 + R2 + ..., D], the samples' regions one after another. Raises ValueError naming the row
        whose tokens and pictures or masks disagree, or that holds an id outside of the vocabulary.
        """
        masks = _mask_arrays(masks)
        batch = self._batch(input_ids, attention_mask, images, depths, masks)
        found = _forward(self.config, self.compute, self.params, batch)
        out = {name: np.asarray(value, np.float32) for name, value in found.items()}
        out["logits"] = out["logits"][..., : self.config.decoder.vocab_size]
        for name in ("region_rgb", "region_depth"):
            if name in out:
                out[name] = np.concatenate([row[: mask.shape[-1]] for row, mask in zip(out[name], masks)])
        return out

    def generate(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
        max_new_tokens: int = 120,
        sampling: Sampling = GREEDY,
        seed: int = 0,
    ) -> np.ndarray:
        """Continues left-padded prompts (arguments as in `forward`): int32[B, max_new_tokens], eos after a row's first eos."""
        _check_prompts(attention_mask, max_new_tokens)
        batch = self._batch(input_ids, attention_mask, images, depths, _mask_arrays(masks))
        ids = generate(
            decode_weights(self.config, self.compute, self.params),
            batch,
            jax.random.key(seed),
            max_new_tokens=max_new_tokens,
            eos_id=self.eos_id,
            sampling=sampling,
        )
        return np.asarray(ids)

    def stream(
        self,
        input_ids: np.ndarray,
        attention_mask: np.ndarray,
        images: np.ndarray,
        depths: np.ndarray | None = None,
        masks: Sequence[np.ndarray] | None = None,
        max_new_tokens: int = 120,
    ) -> Iterator[np.ndarray]:
        """Yields the columns of the greedy `generate`, int32[B] each, as they are made, until every row has ended."""
        _check_prompts(attention_mask, max_new_tokens)
        batch = self._batch(input_ids, attention_mask, images, depths, _mask_arrays(masks))
        weights = decode_weights(self.config, self.compute, self.params)
        return stream(weights, batch, max_new_tokens=max_new_tokens, eos_id=self.eos_id)

    @property
    def eos_id(self) -> int:
        return EOS_ID if self.tokenizer is None else self.tokenizer.eos_id

    def _batch(self, input_ids, attention_mask, images, depths, masks) -> dict[str, Any]:
        input_ids, attention_mask = np.asarray(input_ids), np.asarray(attention_mask, np.int32)
        if input_ids.ndim != 2 or input_ids.shape != attention_mask.shape:
            raise ValueError(
                f"input_ids {input_ids.shape} and attention_mask {attention_mask.shape} must both be [B, S]"
            )
        if not input_ids.size:
            raise ValueError(f"input_ids {input_ids.shape} holds no token")
        vocabulary = self.config.decoder.vocab_size
        # Padding is looked up too.
        outside = np.argwhere((input_ids < 0) | (input_ids >= vocabulary))
        if len(outside):
            row, place = outside[0]
            raise ValueError(f"row {row} has the id {input_ids[row, place]}, the vocabulary is of {vocabulary} tokens")
        input_ids = input_ids.astype(np.int32)
        size = self.config.vision.image_size
        for name, pictures in (("images", images), ("depths", depths)):
            if pictures is not None and np.shape(pictures) != (len(input_ids), size, size, 3):
                raise ValueError(f"{name} has shape {np.shape(pictures)}, expected {(len(input_ids), size, size, 3)}")
        if masks is not None and len(masks) != len(input_ids):
            raise ValueError(f"{len(masks)} mask arrays for {len(input_ids)} rows")
        regions = depths is not None and masks is not None
        most = max([m.shape[-1] for m in masks], default=0) if regions else 0
        batch = {
            "tokens": input_ids,
            "positions": np.maximum(np.cumsum(attention_mask, axis=1) - 1, 0).astype(np.int32),
            "picture_ids": (attention_mask != 0).astype(np.int32),
            "question_ids": np.zeros_like(input_ids),
            "feature_index": self._feature_index(
                input_ids, attention_mask, [m.shape[-1] for m in masks] if regions else None, most
            ),
            "images": jnp.asarray(images, jnp.float32)[:, None],
        }
        if regions and most:
            grid = self.config.mask_grid
            sampled = np.zeros((len(input_ids), 1, most, grid, grid), np.float32)
            for row, mask in enumerate(masks):
                sampled[row, 0, : mask.shape[-1]] = resample(mask, grid).transpose(2, 0, 1)
            batch["depths"] = jnp.asarray(depths, jnp.float32)[:, None]
            batch["region_masks"] = sampled
        return batch

    def _feature_index(
        self, input_ids: np.ndarray, attention_mask: np.ndarray, regions: list[int] | None, most: int
    ) -> np.ndarray:
        """Where each token's feature lies (int32[B, S], -1 for text): the i-th image token takes image token i, the i-th
        mask token region i."""
        image_id = self.config.decoder.vocab_size - 3
        tokens = self.config.image_tokens
        index = np.full(input_ids.shape, -1, np.int32)
        for row in range(len(input_ids)):
            kinds = [(image_id, "image tokens", 0, tokens)]
            if regions is not None:
                kinds += [
                    (image_id + 1, "RGB region tokens", tokens, regions[row]),
                    (image_id + 2, "depth region tokens", tokens + most, regions[row]),
                ]
            for token_id, name, start, available in kinds:
                places = np.flatnonzero((input_ids[row] == token_id) & (attention_mask[row] != 0))
                if len(places) > available:
                    raise ValueError(f"row {row} has {len(places)} {name} but only {available} features for them")
                index[row, places] = start + np.arange(len(places))
        return index


def _mask_arrays(masks: Sequence[np.ndarray | None] | None) -> list[np.ndarray] | None:
    """The rows' masks as arrays [Hm, Wm, R], R = 0 for None; raises ValueError naming the row of another shape."""
    if masks is None:
        return None
    arrays = [np.zeros((1, 1, 0), bool) if mask is None else np.asarray(mask) for mask in masks]
    for row, mask in enumerate(arrays):
        if mask.ndim != 3 or 0 in mask.shape[:2]:
            raise ValueError(f"the masks of row {row} have shape {mask.shape}, expected [height, width, regions]")
    return arrays


def _check_prompts(attention_mask: np.ndarray, max_new_tokens: int) -> None:
    """Raises ValueError naming the row whose answer would not follow its last token, or for no answer at all."""
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, must be at least 1")
    attended = np.asarray(attention_mask) != 0
    if attended.ndim != 2:
        return  # told with the shape of the ids
    misplaced = ~attended[:, -1:].any(axis=1) | (attended[:, :-1] & ~attended[:, 1:]).any(axis=1)
    if attended.size and misplaced.any():
        raise ValueError(f"row {np.argmax(misplaced)} is not padded on the left")


def load(path: str | Path, compute_dtype: str = "float32", mesh: Mesh | None = None) -> Model:
    """Loads a checkpoint of any kind, see `read_checkpoint`: parameters in float32 on this process's first device, or on `mesh` with
    the shardings of training.

    Raises CheckpointError for a folder that holds no checkpoint or a damaged one.
    """
    read = read_checkpoint(path).on_devices(mesh)
    compute = Compute.of(read.config, dtype=compute_dtype)
    return Model(read.config, read.params, read.tokenizer, read.source, read.layout, read.run, compute)
