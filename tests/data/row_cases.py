"""Pictures and questions that need no files, and what tests of rows and batches share."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.records import Picture, Question
from smolrgpt_jax.data.rows import RowShape

REGIONS = [RLE(1, 40, bytes([48 + n, 48 + 1])) for n in range(30)]


def question(id, regions, words=1, answer="ok"):
    prompt = " ".join(["<mask>"] * len(regions) + ["a"] * words)
    return Question(id, "distance", prompt, answer, None, tuple(REGIONS[r] for r in regions))


def picture(id, *questions):
    return Picture(id, Path(f"{id}.png"), Path(f"{id}_depth.png"), questions)


def shape(**changes):
    return RowShape(
        **{"tokens": 96, "pictures": 2, "regions": 3, "image_tokens": 4, "image_size": 8, "mask_grid": 4} | changes
    )


def damage(picture):
    content = picture.depth.read_bytes()
    picture.depth.write_bytes(content[: len(content) // 2])


def row_of(rows, index):
    """One of `PackedRows`: the arrays of a batch without their first dimension."""
    return {key: value[0] for key, value in rows.batch([index]).items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    for key in left:
        np.testing.assert_array_equal(left[key], right[key])
