"""Warehouse scenes: what stands where, seen from where.

A scene is a function of its generator's state. The camera is drawn first and objects are placed
where it sees them, so that nearly everything can be asked about.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.warehouse.picture.appearance import Colors, Look, draw_colors, draw_look, dress, vary_camera
from smolrgpt_jax.warehouse.scene import objects
from smolrgpt_jax.warehouse.scene.clutter import add_clutter
from smolrgpt_jax.warehouse.scene.geometry import Camera, Point, corners, in_rectangle, overlap
from smolrgpt_jax.warehouse.scene.objects import Color, Cuboid, Thing
from smolrgpt_jax.warehouse.scene.placing import (
    Builder,
    SceneLimits,
    place_buffers,
    place_clutter,
    place_shelves,
    place_transporters,
)

PAINTS: tuple[Color, ...] = ((0.92, 0.74, 0.12), (0.92, 0.74, 0.12), (0.15, 0.34, 0.66), (0.88, 0.45, 0.12))


@dataclasses.dataclass(frozen=True)
class Scene:
    """A closed room with things and clutter.

    Attributes:
      things: what can be asked about; things[i].number == i + 1.
      cuboids: everything that stands, metres.
      camera: the view.
      room: width (x from -width/2), depth (y from 0) and height, metres.
      floor, wall, stripe, paint: colours, RGB in 0..1.
      light: unit vector towards the light; ambient: share of light that has no direction.
      tint: factor for each colour channel.
      texture_seed: of stains on floor and walls.
      counted: number of the buffer in which the number of pallets is uniform.
      look: what its surfaces look like.
    """

    things: tuple[Thing, ...]
    cuboids: tuple[Cuboid, ...]
    camera: Camera
    room: tuple[float, float, float]
    floor: Color
    wall: Color
    stripe: Color
    paint: Color
    light: tuple[float, float, float]
    ambient: float
    tint: Color
    texture_seed: int
    counted: int
    look: Look = Look()

    def of_kind(self, kind: str) -> list[Thing]:
        """The things of one kind, by number."""
        return [thing for thing in self.things if thing.kind == kind]

    def inside(self, buffer: Thing) -> list[Thing]:
        """The pallets that stand in a buffer."""
        return [
            pallet
            for pallet in self.of_kind("pallet")
            if in_rectangle(pallet.position, buffer.position, buffer.size, buffer.yaw)
        ]

    def half_inside(self, kinds: Sequence[str] = ("pallet",)) -> list[Thing]:
        """The things of some kinds that lie partly within a buffer, so that in or out is in doubt."""
        return [
            thing
            for thing in self.things
            if thing.kind in kinds and any(is_half_inside(thing, buffer) for buffer in self.of_kind("buffer"))
        ]


def footprint(thing: Thing) -> list[Point]:
    """Corners of the floor below a thing, that of its load where that is larger."""
    size = thing.size
    if thing.carrying:
        size = max(size[0], objects.PALLET[0]), max(size[1], objects.PALLET[1])
    return corners(thing.position, size, thing.yaw)


def is_half_inside(thing: Thing, buffer: Thing) -> bool:
    """Whether a thing's footprint is neither wholly inside of a buffer's rectangle nor wholly outside."""
    outline = footprint(thing)
    if all(in_rectangle(point, buffer.position, buffer.size, buffer.yaw) for point in outline):
        return False
    return overlap(outline, footprint(buffer))


def make_scene(rng: np.random.Generator, limits: SceneLimits = SceneLimits()) -> Scene:
    """Draws a scene: buffers with pallets, pallets beside them, transporters, shelves, clutter.

    At most one transporter is empty, and one pallet is clearly the closest to it. Pallets are
    placed inside or outside of buffers; the few that reach over a line all the same are for
    ``half_inside`` to find. The number of pallets in the counted buffer is uniform over 1 to 4,
    whatever their total.
    """
    room = (rng.uniform(15, 21), rng.uniform(15, 21), rng.uniform(7.5, 9.0))
    camera = _camera(rng, room, limits.camera_variety)
    variety = limits.appearance_variety
    # A child of the seed: what is drawn with it takes nothing from the stream of all other draws.
    look_rng = rng.spawn(1)[0] if variety else None
    if look_rng is not None:
        camera = vary_camera(look_rng, camera, room, variety * limits.camera_variety)
    builder = Builder(rng, room, camera)
    counted = place_buffers(builder, limits)
    place_shelves(builder, limits)
    place_transporters(builder, limits)
    place_clutter(builder)
    grey = rng.uniform(0.34, 0.56)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.4), 1.0])
    x, y, z = light / np.linalg.norm(light)
    wall = rng.uniform(0.60, 0.92)
    warmth = rng.uniform(-0.06, 0.06)
    scene = Scene(
        things=tuple(builder.things),
        cuboids=tuple(builder.cuboids),
        camera=camera,
        room=room,
        floor=objects.tinted(rng, (grey, grey, grey), 0.03),
        wall=objects.tinted(rng, (wall, wall, wall), 0.03),
        stripe=objects.tinted(rng, (0.10, 0.27, 0.62), 0.15),
        paint=objects.tinted(rng, PAINTS[rng.integers(len(PAINTS))], 0.05),
        light=(float(x), float(y), float(z)),
        ambient=float(rng.uniform(0.5, 0.7)),
        tint=(1 + warmth, 1.0, 1 - warmth),
        texture_seed=int(rng.integers(2**31)),
        counted=counted,
    )
    return scene if look_rng is None else _varied(scene, builder, look_rng, variety)


def _varied(scene: Scene, builder: Builder, rng: np.random.Generator, variety: float) -> Scene:
    """The same scene with more clutter and another look."""
    add_clutter(builder, rng, variety)
    colors = Colors(scene.floor, scene.wall, scene.stripe, scene.paint)
    return dataclasses.replace(
        scene,
        cuboids=tuple(dress(rng, builder.cuboids, variety)),
        look=draw_look(rng, scene.room, variety),
        **dataclasses.asdict(draw_colors(rng, colors, variety)),
    )


def _camera(rng: np.random.Generator, room: tuple[float, float, float], variety: float) -> Camera:
    """High up by the front wall, looking down at a point in the middle of the floor."""

    def about_middle(low: float, high: float) -> float:
        spare = (1 - variety) * (high - low) / 2
        return rng.uniform(low + spare, high - spare)

    width, depth, _ = room
    x, y, z = rng.uniform(-0.3, 0.3) * width, rng.uniform(0.4, 2.0), about_middle(3.6, 6.8)
    reach = about_middle(5.0, min(8.5, 2.2 * z))
    target = rng.uniform(-0.12, 0.12) * width - 0.3 * x, min(y + reach, 0.6 * depth)
    yaw = math.atan2(target[0] - x, target[1] - y)
    pitch = math.atan2(z, math.dist((x, y), target))
    return Camera((x, y, z), yaw, pitch, about_middle(0.58, 0.80))
