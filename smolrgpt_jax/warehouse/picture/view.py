"""What a camera sees of a scene: RGB, metric depth, instance ids, and every visible thing with its mask and places."""

import dataclasses
import math

import numpy as np
from pycocotools import mask as coco

from smolrgpt_jax.warehouse.picture.shading import shade
from smolrgpt_jax.warehouse.picture.zbuffer import find_faces
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.objects import Thing


@dataclasses.dataclass(frozen=True)
class Rendering:
    """What the camera sees."""

    rgb: np.ndarray  # uint8[H, W, 3]
    depth: np.ndarray  # float32[H, W], metres along the optical axis; finite everywhere
    # int32[H, W], number of the thing seen, 0 for none. A buffer is the floor that is seen within its line.
    ids: np.ndarray


@dataclasses.dataclass(frozen=True)
class Region:
    thing: Thing
    index: int  # its place in the list that `visible_regions` returned
    counts: str  # COCO's compressed run lengths of its visible mask
    u: float  # centroid of the visible mask in fractions of the picture's width
    v: float  # and height
    ahead: float  # metres from the point below the camera to the thing's centre on the floor
    right: float

    @property
    def kind(self) -> str:
        return self.thing.kind


def render(scene: Scene, width: int, height: int) -> Rendering:
    """Renders a scene, whose camera is inside the room, at any resolution in pixels."""
    pixels = find_faces(scene, width, height)
    rgb, ids = shade(scene, pixels)
    return Rendering(rgb, pixels.depth, ids)


def visible_regions(scene: Scene, rendering: Rendering, min_area: float) -> list[Region]:
    """The things whose visible mask covers at least `min_area` of the picture, by number."""
    height, width = rendering.ids.shape
    size, flat = len(scene.things) + 1, rendering.ids.ravel()
    areas = np.bincount(flat, minlength=size)
    rows, columns = np.indices((height, width)).reshape(2, -1)
    u = (np.bincount(flat, columns, size) / np.maximum(areas, 1) + 0.5) / width
    v = (np.bincount(flat, rows, size) / np.maximum(areas, 1) + 0.5) / height
    by_column = np.asfortranarray(rendering.ids)  # the order that COCO encodes in
    regions: list[Region] = []
    for thing in scene.things:
        number = thing.number
        if areas[number] >= max(min_area * height * width, 1):
            counts = coco.encode((by_column == number).view(np.uint8))["counts"].decode()
            place = scene.camera.on_floor(thing.position)
            regions.append(Region(thing, len(regions), counts, float(u[number]), float(v[number]), *place))
    return regions


def is_inside(region: Region, buffer: Region) -> bool:
    """Whether a thing's centre stands within a buffer's rectangle."""
    return buffer.thing.holds(region.thing.position)


def floor_distance(a: Region, b: Region) -> float:
    """Metres between two centres on the floor.

    Exactly 0 for a thing whose centre is inside a buffer; outside, the distance to a buffer is that to the middle of its rectangle.
    """
    for buffer, other in ((a, b), (b, a)):
        if buffer.kind == "buffer" and other.kind != "buffer" and is_inside(other, buffer):
            return 0.0
    return math.dist(a.thing.position, b.thing.position)
