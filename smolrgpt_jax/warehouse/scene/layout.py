"""Warehouse scenes: what stands where, seen from where.

A scene is a function of its generator's state. The camera is drawn first and objects are placed
where it sees them, so that nearly everything can be asked about.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from smolrgpt_jax.warehouse.parameters import WarehouseConfig
from smolrgpt_jax.warehouse.scene.geometry import Camera, Vector
from smolrgpt_jax.warehouse.scene.look import Colors, Look, draw_colors, draw_look, dress, plain_colors, vary_camera
from smolrgpt_jax.warehouse.scene.objects import Color, Cuboid, Thing
from smolrgpt_jax.warehouse.scene.placing import Builder


@dataclasses.dataclass(frozen=True)
class Scene:
    """A closed room with things and clutter."""

    things: tuple[Thing, ...]  # what can be asked about; things[i].number == i + 1
    cuboids: tuple[Cuboid, ...]  # everything that stands
    camera: Camera
    room: Vector  # width (x from -width/2), depth (y from 0) and height, metres
    colors: Colors
    light: Vector  # unit vector towards the light
    ambient: float  # share of light that has no direction
    tint: Color  # factor for each colour channel
    texture_seed: int  # of stains on floor and walls
    counted: int  # number of the buffer in which the number of pallets is uniform
    look: Look = Look()

    def of_kind(self, kind: str) -> list[Thing]:
        """The things of one kind, by number."""
        return [thing for thing in self.things if thing.kind == kind]

    def half_inside(self, clear_lines: bool) -> list[Thing]:
        """The pallets, and with `clear_lines` the other things, that lie partly within a buffer: in or out is in doubt."""
        kinds, buffers = ("pallet", "transporter", "shelf") if clear_lines else ("pallet",), self.of_kind("buffer")
        return [thing for thing in self.things if thing.kind in kinds and any(map(thing.is_half_inside, buffers))]


def make_scene(rng: np.random.Generator, config: WarehouseConfig = WarehouseConfig()) -> Scene:
    """Draws a scene: buffers with pallets, pallets beside them, transporters, shelves, clutter.

    At most one transporter is empty, and one pallet is clearly the closest to it. Pallets are
    placed inside or outside of buffers; the few that reach over a line all the same are for
    `half_inside` to find. The number of pallets in the counted buffer is uniform over 1 to 4,
    whatever their total.
    """
    room = (rng.uniform(15, 21), rng.uniform(15, 21), rng.uniform(7.5, 9.0))
    camera = _camera(rng, room, config.camera_variety)
    variety = config.appearance_variety
    # A child of the seed: what is drawn with it takes nothing from the stream of all other draws.
    look_rng = rng.spawn(1)[0] if variety else None
    if look_rng is not None:
        camera = vary_camera(look_rng, camera, room, variety * config.camera_variety)
    builder = Builder(rng, room, camera, config)
    counted = builder.place_buffers()
    builder.place_shelves()
    builder.place_transporters()
    builder.place_furniture()
    grey = rng.uniform(0.34, 0.56)
    light = np.array([rng.uniform(-0.7, 0.7), rng.uniform(-0.8, 0.4), 1.0])
    wall, warmth = rng.uniform(0.60, 0.92), rng.uniform(-0.06, 0.06)
    scene = Scene(
        things=tuple(builder.things),
        cuboids=tuple(builder.cuboids),
        camera=camera,
        room=room,
        colors=plain_colors(rng, grey, wall),
        light=tuple((light / np.linalg.norm(light)).tolist()),
        ambient=rng.uniform(0.5, 0.7),
        tint=(1 + warmth, 1.0, 1 - warmth),
        texture_seed=int(rng.integers(2**31)),
        counted=counted,
    )
    if look_rng is None:
        return scene
    builder.add_clutter(look_rng)
    return dataclasses.replace(
        scene,
        cuboids=tuple(dress(look_rng, builder.cuboids, variety)),
        look=draw_look(look_rng, room, variety),
        colors=draw_colors(look_rng, scene.colors, variety),
    )


def _camera(rng: np.random.Generator, room: Vector, variety: float) -> Camera:
    """High up by the front wall, looking down at a point in the middle of the floor."""

    def about_middle(low: float, high: float) -> float:
        spare = (1 - variety) * (high - low) / 2
        return rng.uniform(low + spare, high - spare)

    width, depth, _ = room
    x, y, z = rng.uniform(-0.3, 0.3) * width, rng.uniform(0.4, 2.0), about_middle(3.6, 6.8)
    reach = about_middle(5.0, min(8.5, 2.2 * z))
    target = rng.uniform(-0.12, 0.12) * width - 0.3 * x, min(y + reach, 0.6 * depth)
    pitch = math.atan2(z, math.dist((x, y), target))
    return Camera((x, y, z), math.atan2(target[0] - x, target[1] - y), pitch, about_middle(0.58, 0.80))
