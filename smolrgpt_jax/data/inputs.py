"""What a model takes: prompts, pictures and region masks, checked and put into arrays.

A copy of this file lies in every exported folder: it needs NumPy and masks.py alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smolrgpt_jax.data.masks import resample

PICTURES = ("images", "depths", "region_masks")
FEATURE_TOKENS = ("image tokens", "RGB region tokens", "depth region tokens")


@dataclass(frozen=True)
class InputSizes:
    image_size: int  # pixels along a side
    image_tokens: int
    mask_grid: int  # points along a side
    vocab_size: int  # which ends with the three `FEATURE_TOKENS`

    @classmethod
    def of(cls, config: Any) -> "InputSizes":
        """Those of a `SmolRGPTConfig`."""
        return cls(config.vision.image_size, config.image_tokens, config.mask_grid, config.decoder.vocab_size)


def feature_index(
    tokens: np.ndarray, ids: Sequence[int], features: Sequence[Sequence[int] | np.ndarray | None]
) -> np.ndarray:
    """Which feature takes each token's place, int32[N], -1 for text: the i-th token of a kind takes the i-th of its features.

    tokens: int[N]; ids and features: of each of the `FEATURE_TOKENS`, None for tokens that keep their own embedding. Raises
    ValueError for a kind with more tokens than features.
    """
    index = np.full(tokens.shape, -1, np.int32)
    for name, token, available in zip(FEATURE_TOKENS, ids, features):
        if available is not None:
            places = np.flatnonzero(tokens == token)
            if len(places) > len(available):
                raise ValueError(f"{len(places)} {name} but only {len(available)} features for them")
            index[places] = available[: len(places)]
    return index


def mask_arrays(masks: Sequence[np.ndarray | None]) -> list[np.ndarray]:
    """The rows' masks as arrays [Hm, Wm, R], R = 0 for None; raises ValueError naming the row of another shape."""
    arrays = [np.zeros((1, 1, 0), bool) if mask is None else np.asarray(mask) for mask in masks]
    for row, mask in enumerate(arrays):
        if mask.ndim != 3 or 0 in mask.shape[:2]:
            raise ValueError(f"the masks of row {row} have shape {mask.shape}, expected [height, width, regions]")
    return arrays


def model_inputs(
    sizes: InputSizes,
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    images: np.ndarray,
    depths: np.ndarray | None = None,
    masks: Sequence[np.ndarray | None] | None = None,
    regions: int | None = None,
) -> dict[str, np.ndarray]:
    """The arrays of a batch of rows of one picture each.

    input_ids, attention_mask: int[B, S]; images: float32[B, H, W, 3] in [-1, 1]; depths: the same shape or None; masks: B arrays
    [Hm, Wm, R] (bool or 0/1) of any size and number of regions, None for a row without regions; or None. Without depths or masks
    only the image tokens are replaced. regions: places for a row's regions, None for as many as the row with the most has.

    Returns tokens, attention_mask and feature_index int32[B, S], images, and, where there is a region, depths and region_masks
    float32[B, R, g, g]. Raises ValueError naming the row whose tokens and pictures or masks disagree, or that holds an id outside
    of the vocabulary.
    """
    tokens, attended = np.asarray(input_ids), np.asarray(attention_mask) != 0
    if tokens.ndim != 2 or tokens.shape != attended.shape:
        raise ValueError(f"input_ids {tokens.shape} and attention_mask {attended.shape} must both be [B, S]")
    if not tokens.size:
        raise ValueError(f"input_ids {tokens.shape} holds no token")
    # Padding is looked up too.
    outside = np.argwhere((tokens < 0) | (tokens >= sizes.vocab_size))
    if len(outside):
        row, place = outside[0]
        raise ValueError(f"row {row} has the id {tokens[row, place]}, the vocabulary is of {sizes.vocab_size} tokens")
    for name, pictures in (("images", images), ("depths", depths)):
        expected = (len(tokens), sizes.image_size, sizes.image_size, 3)
        if pictures is not None and np.shape(pictures) != expected:
            raise ValueError(f"{name} has shape {np.shape(pictures)}, expected {expected}")
    if masks is not None and len(masks) != len(tokens):
        raise ValueError(f"{len(masks)} mask arrays for {len(tokens)} rows")
    given = mask_arrays(masks) if depths is not None and masks is not None else []
    counts = [mask.shape[-1] for mask in given] or [0] * len(tokens)
    room = max(counts) if regions is None else regions
    index = np.zeros(tokens.shape, np.int32)
    for row, count in enumerate(counts):
        if count > room:
            raise ValueError(f"row {row} has {count} regions, there is place for {room}")
        rgb = sizes.image_tokens + np.arange(count)
        features = (np.arange(sizes.image_tokens), *((rgb, rgb + room) if given else (None, None)))
        ids = range(sizes.vocab_size - len(FEATURE_TOKENS), sizes.vocab_size)
        try:
            index[row] = feature_index(np.where(attended[row], tokens[row], -1), ids, features)
        except ValueError as error:
            raise ValueError(f"row {row} has {error}") from error
    batch: dict[str, Any] = {"tokens": tokens, "attention_mask": attended, "feature_index": index}
    batch = {name: value.astype(np.int32) for name, value in batch.items()}
    batch["images"] = np.asarray(images, np.float32)
    if any(counts):
        batch["depths"] = np.asarray(depths, np.float32)
        batch["region_masks"] = np.zeros((len(tokens), room, sizes.mask_grid, sizes.mask_grid), np.float32)
        for row, mask in enumerate(given):
            batch["region_masks"][row, : mask.shape[-1]] = resample(mask, sizes.mask_grid).transpose(2, 0, 1)
    return batch


def check_left_padded(attention_mask: np.ndarray) -> None:
    """Raises ValueError naming the row whose answer would not follow its last token; attention_mask: [B, S]."""
    attended = np.asarray(attention_mask) != 0
    misplaced = ~attended[:, -1:].any(axis=1) | (attended[:, :-1] & ~attended[:, 1:]).any(axis=1)
    if misplaced.any():
        raise ValueError(f"row {np.argmax(misplaced)} is not padded on the left")
