"""What a rendered scene shows: the visible region of every thing, with its place in the picture and on the floor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as coco

from smolrgpt_jax.data.warehouse_sim.render import Rendering
from smolrgpt_jax.data.warehouse_sim.scene import Scene, Thing

MIN_AREA = 0.0008  # of the picture; smaller regions are not asked about


@dataclass(frozen=True)
class Region:
    """One visible thing.

    rle: {"size": [h, w], "counts": str}; u, v: centroid of the visible mask, fractions of width and height; ahead, right:
    metres from the camera's ground point along and across its heading; the thing itself.
    """

    thing: Thing
    rle: dict
    u: float
    v: float
    ahead: float
    right: float

    @property
    def kind(self) -> str:
        return self.thing.kind


def visible_regions(scene: Scene, rendering: Rendering) -> list[Region]:
    """The regions of all things that are large enough in the picture, by number."""
    height, width = rendering.ids.shape
    numbers = [t.number for t in scene.things]
    areas = np.bincount(rendering.ids.ravel(), minlength=max(numbers, default=0) + 1)
    regions = []
    for thing in scene.things:
        if areas[thing.number] < MIN_AREA * height * width:
            continue
        mask = rendering.ids == thing.number
        rows, columns = np.nonzero(mask)
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        ahead, right = _heading(scene, thing.position)
        regions.append(
            Region(
                thing,
                {"size": [height, width], "counts": rle["counts"].decode()},
                float((columns.mean() + 0.5) / width),
                float((rows.mean() + 0.5) / height),
                ahead,
                right,
            )
        )
    return regions


def _heading(scene: Scene, position: tuple[float, float]) -> tuple[float, float]:
    dx, dy = position[0] - scene.camera.position[0], position[1] - scene.camera.position[1]
    sin, cos = math.sin(scene.camera.yaw), math.cos(scene.camera.yaw)
    return dx * sin + dy * cos, dx * cos - dy * sin


def floor_distance(a: Thing, b: Thing) -> float:
    """Metres between the centres on the floor; 0 when one is a buffer and the other's centre lies inside it."""
    for buffer, other in ((a, b), (b, a)):
        if buffer.kind == "buffer" and other.kind != "buffer" and is_inside(other.position, buffer):
            return 0.0
    return math.dist(a.position, b.position)


def is_inside(position: tuple[float, float], buffer: Thing) -> bool:
    """Whether a floor point lies in a buffer's rectangle."""
    dx, dy = position[0] - buffer.position[0], position[1] - buffer.position[1]
    cos, sin = math.cos(-buffer.yaw), math.sin(-buffer.yaw)
    return abs(cos * dx - sin * dy) < buffer.size[0] / 2 and abs(sin * dx + cos * dy) < buffer.size[1] / 2
