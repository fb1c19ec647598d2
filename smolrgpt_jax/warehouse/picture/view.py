"""What a rendered scene shows: every thing that can be seen, with its mask and its places."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from pycocotools import mask as coco

from smolrgpt_jax.warehouse.picture.render import Rendering
from smolrgpt_jax.warehouse.scene.geometry import in_rectangle
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.objects import Thing


@dataclasses.dataclass(frozen=True)
class Region:
    """One visible thing.

    Attributes:
      thing: what it is.
      index: its place in the list that ``visible_regions`` returned.
      counts: COCO's compressed run lengths of its visible mask.
      u, v: centroid of the visible mask in fractions of the picture's width and height.
      ahead, right: metres from the point below the camera to the thing's centre on the floor.
    """

    thing: Thing
    index: int
    counts: str
    u: float
    v: float
    ahead: float
    right: float

    @property
    def kind(self) -> str:
        return self.thing.kind


def visible_regions(scene: Scene, rendering: Rendering, min_area: float) -> list[Region]:
    """The things whose visible mask covers at least ``min_area`` of the picture, by number."""
    height, width = rendering.ids.shape
    size = len(scene.things) + 1
    flat = rendering.ids.ravel()
    areas = np.bincount(flat, minlength=size)
    columns = np.broadcast_to(np.arange(width), (height, width)).ravel()
    rows = np.repeat(np.arange(height), width)
    u = (np.bincount(flat, columns, size) / np.maximum(areas, 1) + 0.5) / width
    v = (np.bincount(flat, rows, size) / np.maximum(areas, 1) + 0.5) / height
    by_column = np.asfortranarray(rendering.ids)  # the order that COCO encodes in
    regions = []
    for thing in scene.things:
        number = thing.number
        if areas[number] < max(min_area * height * width, 1):
            continue
        counts = coco.encode((by_column == number).view(np.uint8))["counts"].decode()
        ahead, right = scene.camera.on_floor(thing.position)
        regions.append(Region(thing, len(regions), counts, float(u[number]), float(v[number]), ahead, right))
    return regions


def is_inside(thing: Thing, buffer: Thing) -> bool:
    """Whether a thing's centre stands within a buffer's rectangle."""
    return in_rectangle(thing.position, buffer.position, buffer.size, buffer.yaw)


def floor_distance(a: Thing, b: Thing) -> float:
    """Metres between two centres on the floor.

    Exactly 0 for a thing whose centre is inside a buffer; outside, the distance to a buffer is that
    to the middle of its rectangle.
    """
    for buffer, other in ((a, b), (b, a)):
        if buffer.kind == "buffer" and other.kind != "buffer" and is_inside(other, buffer):
            return 0.0
    return math.dist(a.position, b.position)
