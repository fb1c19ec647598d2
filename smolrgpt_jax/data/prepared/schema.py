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

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import Picture, Question, StoredRegion, normalize_answer

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


def pack_masks(regions: Sequence[RLE], grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks -> (uint8[R, grid, grid / 2], int32[R, 2]), see the module's text."""
    bits = np.zeros((len(regions), grid, grid), np.uint8)
    for place, region in enumerate(regions):
        bits[place] = masks.corner_bits(region, grid)
    sizes = np.array([(r.height, r.width) for r in regions], np.int32).reshape(-1, 2)
    return bits[..., 0::2] | bits[..., 1::2] << 4, sizes


def unpack_masks(packed: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """The inverse up to the interpolation: float32[R, grid, grid], what `masks.resample_rle` gives."""
    bits = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], -1)
    weights = np.empty(bits.shape, np.float32)
    for height, width in np.unique(sizes, axis=0):
        same = (sizes == (height, width)).all(axis=1)
        weights[same] = masks.weights(bits[same], int(height), int(width))
    return weights


def question_rows(picture: Picture) -> tuple[list[dict[str, Any]], list[RLE]]:
    """A picture's questions as plain values, and its distinct masks, which the questions' `regions` number."""
    numbers: dict[RLE, int] = {}
    rows = [
        {
            "id": question.id,
            "category": question.category,
            "turns": question.turns,
            "normalized_answer": None if question.normalized_answer is None else str(question.normalized_answer),
            "regions": [numbers.setdefault(region, len(numbers)) for region in question.regions],
        }
        for question in picture.questions
    ]
    return rows, list(numbers)


def question_of(row: dict[str, Any]) -> Question:
    """The question that a row of `question_rows` holds."""
    users, answers = row["turns"][::2], row["turns"][1::2]
    return Question(
        id=row["id"],
        category=row["category"],
        prompt=users[-1],
        answer=answers[-1] if len(answers) == len(users) else None,
        normalized_answer=normalize_answer(row["category"], row["normalized_answer"]),
        regions=tuple(map(StoredRegion, row["regions"])),
        earlier=tuple(zip(users[:-1], answers)),
    )


def to_json(rows: list[dict[str, Any]]) -> str:
    return json.dumps(rows, ensure_ascii=False, separators=(",", ":"))
