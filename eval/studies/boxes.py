"""Regions given as boxes, and as what is made of boxes: what a mask is worth, and what of it comes back without any."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from eval.assist.tightened import least_box, tighten
from smolrgpt_jax.data.images import picture_size
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.regions import read_masks

Records = list[dict[str, Any]]


def boxed(records: Records, rng: np.random.Generator, pictures: Path) -> Records:
    """Records in the published layout, with the least box of each region in its place; pictures: the folder of `images`."""
    return _changed(records, pictures, lambda picture, box: box)


def tightened(records: Records, rng: np.random.Generator, pictures: Path) -> Records:
    """The same with those boxes tightened; raises ImportError without OpenCV."""
    return _changed(records, pictures, lambda picture, box: tighten(picture, [box])[0])


def _changed(records: Records, pictures: Path, change: Callable[[Path, RLE], RLE]) -> Records:
    change = functools.cache(change)  # a picture's regions come again in its other questions
    changed = []
    for record in records:
        picture = pictures / "images" / f"{Path(record['image']).stem}.png"
        regions = [change(picture, least_box(region)) for region in read_masks(record["rle"], picture_size(picture))]
        changed.append({**record, "rle": [region.as_coco() for region in regions]})
    return changed
