"""What a prepared data set holds, one example per picture.

    picture      its name
    image        uint8[image_size, image_size, 3]
    depth        uint8[image_size * image_size], empty where the picture has none
    masks        uint8[R, grid, grid / 2], the distinct masks: two points of the grid per byte, each the four bits of
                 `masks.corner_bits`, the first one in the low half
    mask_sizes   int32[R, 2], height and width of the masks in pixels, which the interpolation needs
    questions    JSON list of {id, category, turns, normalized_answer, regions}

The same questions stand in `questions-<split>.parquet`, so that rows can be packed without reading any picture.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow_datasets as tfds

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.records import RLE, Picture

NAME = "prepared_pictures"
VERSION = "1.0.0"
SETTINGS_FILE = "prepared.json"
QUESTION_COLUMNS = pa.schema(
    {
        "picture": pa.int32(),
        "name": pa.string(),
        "has_depth": pa.bool_(),
        "id": pa.string(),
        "category": pa.string(),
        "turns": pa.list_(pa.string()),
        "normalized_answer": pa.string(),
        "regions": pa.list_(pa.int32()),
    }
)


def features(image_size: int, grid: int) -> tfds.features.FeaturesDict:
    """The TFDS features of an example; raises ValueError for an odd grid."""
    if grid % 2:
        raise ValueError(f"the mask grid is {grid}, must be even")
    return tfds.features.FeaturesDict(
        {
            "picture": tfds.features.Text(),
            "image": tfds.features.Tensor(shape=(image_size, image_size, 3), dtype=np.uint8, encoding="bytes"),
            "depth": tfds.features.Tensor(shape=(None,), dtype=np.uint8, encoding="bytes"),
            "masks": tfds.features.Tensor(shape=(None, grid, grid // 2), dtype=np.uint8, encoding="bytes"),
            "mask_sizes": tfds.features.Tensor(shape=(None, 2), dtype=np.int32),
            "questions": tfds.features.Text(),
        }
    )


def pack_masks(regions: Sequence[RLE], grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks -> (uint8[R, grid, grid / 2], int32[R, 2]), see the module's text."""
    bits = np.zeros((len(regions), grid, grid), np.uint8)
    for place, region in enumerate(regions):
        bits[place] = masks.corner_bits(region, grid)
    sizes = np.array([(r.height, r.width) for r in regions], np.int32).reshape(-1, 2)
    return bits[..., 0::2] | bits[..., 1::2] << 4, sizes


def unpack_masks(packed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The inverse up to the interpolation: float32[R, grid, grid], what `masks.resample_rle` gives."""
    bits = np.empty((*packed.shape[:2], 2 * packed.shape[2]), np.uint8)
    bits[..., 0::2], bits[..., 1::2] = packed & 15, packed >> 4
    weights = np.empty(bits.shape, np.float32)
    for height, width in np.unique(sizes, axis=0):
        same = (sizes == (height, width)).all(axis=1)
        weights[same] = masks.weights(bits[same], int(height), int(width))
    return weights


def question_rows(picture: Picture) -> tuple[list[dict[str, Any]], list[RLE]]:
    """A picture's questions as plain values, and its distinct masks, which the questions' `regions` number."""
    numbers: dict[RLE, int] = {}
    rows = []
    for question in picture.questions:
        value = question.normalized_answer
        rows.append(
            {
                "id": question.id,
                "category": question.category,
                "turns": question.turns,
                "normalized_answer": None if value is None else str(value),
                "regions": [numbers.setdefault(region, len(numbers)) for region in question.regions],
            }
        )
    return rows, list(numbers)


def to_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
