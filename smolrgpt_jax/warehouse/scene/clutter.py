"""Things that no question is about: they stand in the way, hide parts and make scenes differ."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import Point
from smolrgpt_jax.warehouse.scene.objects import CARDBOARD, CLUTTER_COLORS, Color, Cuboid, placer, tinted
from smolrgpt_jax.warehouse.scene.placing import NEAREST, Builder

YELLOW: Color = (0.93, 0.74, 0.12)
BLACK: Color = (0.07, 0.07, 0.08)
SKIN: tuple[Color, ...] = ((0.80, 0.62, 0.50), (0.55, 0.38, 0.28), (0.35, 0.24, 0.18))
CLOTHES: tuple[Color, ...] = (
    (0.12, 0.14, 0.22),
    (0.80, 0.80, 0.78),
    (0.85, 0.45, 0.10),
    (0.20, 0.30, 0.55),
    (0.10, 0.55, 0.50),
)
Draw = Callable[[np.random.Generator, Point, float], list[Cuboid]]


def person(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """Somebody who walks, with or without a helmet."""
    place = placer(origin, yaw, 0)
    skin, trousers, shirt = (tinted(rng, colors[rng.integers(len(colors))]) for colors in (SKIN, CLOTHES, CLOTHES))
    step, high = rng.uniform(0.0, 0.16), rng.uniform(0.92, 1.08)
    boxes = [place((side * 0.09, side * step, 0), (0.14, 0.17, 0.82 * high), trousers) for side in (-1, 1)] + [
        place((0, 0, 0.82 * high), (0.40, 0.22, 0.58 * high), shirt),
        place((0, 0, 1.44 * high), (0.17, 0.20, 0.24 * high), skin),
    ]
    boxes += [place((side * 0.25, -side * step, 0.78 * high), (0.10, 0.13, 0.58 * high), shirt) for side in (-1, 1)]
    if rng.random() < 0.6:
        boxes.append(place((0, 0, 1.64 * high), (0.22, 0.25, 0.10), tinted(rng, CLOTHES[rng.integers(1, 4)])))
    return boxes


def pillar(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A column to the ceiling whose foot has black and yellow rings."""
    place = placer(origin, yaw, 0)
    wide = rng.uniform(0.3, 0.5)
    rings = [place((0, 0, 0.25 * k), (wide + 0.08, wide + 0.08, 0.25), (YELLOW, BLACK)[k % 2]) for k in range(5)]
    return [*rings, place((0, 0, 1.25), (wide, wide, 6.0), tinted(rng, (0.70, 0.70, 0.68)))]


def cone(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A traffic cone in three steps."""
    place, orange = placer(origin, yaw, 0), tinted(rng, (0.90, 0.35, 0.08))
    return [
        place((0, 0, 0), (0.36, 0.36, 0.04), orange),
        place((0, 0, 0.04), (0.22, 0.22, 0.22), orange),
        place((0, 0, 0.26), (0.15, 0.15, 0.14), (0.88, 0.88, 0.86)),
        place((0, 0, 0.40), (0.09, 0.09, 0.18), orange),
    ]


def crates(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A heap of boxes without a pallet."""
    place = placer(origin, yaw, 0)
    color = CARDBOARD if rng.random() < 0.6 else CLUTTER_COLORS[rng.integers(len(CLUTTER_COLORS))]
    boxes = []
    for x, y in ((-0.3, -0.25), (0.28, -0.2), (-0.2, 0.3), (0.32, 0.28)):
        base = 0.0
        for _ in range(int(rng.integers(0, 4))):
            size = (rng.uniform(0.3, 0.55), rng.uniform(0.3, 0.5), rng.uniform(0.2, 0.45))
            boxes.append(place((x, y, base), size, tinted(rng, color, 0.12), material="card"))
            base += size[2]
    return boxes


def trolley(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A cart with two or three decks and what lies on them."""
    place, frame = placer(origin, yaw, 0), tinted(rng, (0.16, 0.32, 0.68), 0.25)
    decks = int(rng.integers(2, 4))
    boxes = [place((x * 0.45, y * 0.28, 0.08), (0.05, 0.05, 0.55 * decks), frame) for x in (-1, 1) for y in (-1, 1)]
    for k in range(decks):
        boxes.append(place((0, 0, 0.15 + 0.5 * k), (0.95, 0.6, 0.04), frame))
        if rng.random() < 0.8:
            color = tinted(rng, CLUTTER_COLORS[rng.integers(len(CLUTTER_COLORS))], 0.3)
            size = (rng.uniform(0.4, 0.85), 0.5, rng.uniform(0.12, 0.32))
            boxes.append(place((0, 0, 0.19 + 0.5 * k), size, color, (2, 1, 1)))
    return boxes


def forklift(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A parked truck with mast and forks."""
    place, paint = (placer(origin, yaw, 0), tinted(rng, ((0.90, 0.55, 0.10), (0.75, 0.15, 0.12))[rng.integers(2)]))
    boxes = [
        place((0.1, 0, 0.15), (1.5, 1.0, 0.65), paint),
        place((0.6, 0, 0.8), (0.5, 0.95, 0.35), BLACK),
        place((0.05, 0, 0.8), (0.45, 0.5, 0.45), BLACK),
        place((0.1, 0, 2.0), (1.05, 0.95, 0.06), paint),
    ]
    boxes += [place((x, y * 0.44, 0.8), (0.06, 0.06, 1.2), BLACK) for x in (-0.38, 0.6) for y in (-1, 1)]
    boxes += [place((-0.72, y * 0.3, 0.05), (0.10, 0.10, 2.2), (0.25, 0.25, 0.27)) for y in (-1, 1)]
    boxes += [place((-1.25, y * 0.25, 0.06), (1.0, 0.12, 0.05), (0.25, 0.25, 0.27)) for y in (-1, 1)]
    boxes += [place((x, y * 0.45, 0), (0.5, 0.16, 0.42), BLACK) for x in (-0.4, 0.6) for y in (-1, 1)]
    return boxes


def cabinet(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A row of lockers or machines."""
    place = placer(origin, yaw, 0)
    color = tinted(rng, CLUTTER_COLORS[rng.integers(len(CLUTTER_COLORS))], 0.25)
    size = (rng.uniform(0.8, 1.3), rng.uniform(0.5, 0.9), rng.uniform(1.2, 2.1))
    return [
        place((0, 0, 0), size, color, (int(rng.integers(1, 4)), 1, 2)),
        place((0, 0, size[2]), (0.9 * size[0], 0.4, 0.12), tinted(rng, color, 0.2)),
    ]


# Drawing function, radius of the floor it needs in metres, share among what is placed.
FREE: tuple[tuple[Draw, float, float], ...] = (
    (person, 0.35, 0.28),
    (cone, 0.25, 0.14),
    (crates, 0.65, 0.2),
    (trolley, 0.6, 0.14),
    (pillar, 0.35, 0.1),
    (forklift, 1.6, 0.06),
    (cabinet, 0.7, 0.08),
)


def add_clutter(builder: Builder, rng: np.random.Generator, variety: float) -> None:
    """Adds things on the floor, on the walls and, seldom, one in front of the camera.

    Half of what stands free is put on the camera's side of a pallet, so that it may hide a part
    of it. Nothing stands in a buffer.
    """
    for _ in range(int(rng.integers(3, 12) * variety)):
        draw, radius, _ = FREE[rng.choice(len(FREE), p=[share for *_, share in FREE])]
        place = _in_front_of_a_pallet(builder, rng) if rng.random() < 0.5 else _anywhere(builder, rng)
        if (
            builder.in_room(place, radius + 0.2)
            and builder.is_free(place, radius)
            and builder.outside_buffers(place, radius + 0.05)
            and builder.camera.on_floor(place)[0] > NEAREST
        ):
            builder.cuboids += draw(rng, place, rng.uniform(0, math.pi))
            builder.taken.append((place, radius))
    _on_walls(builder, rng, variety)
    if rng.random() < 0.12 * variety:
        _hanging(builder, rng)


def _anywhere(builder: Builder, rng: np.random.Generator) -> Point:
    width, depth, _ = builder.room
    return float(rng.uniform(-0.5, 0.5) * width), float(rng.uniform(0, depth))


def _in_front_of_a_pallet(builder: Builder, rng: np.random.Generator) -> Point:
    pallets = [thing.position for thing in builder.things if thing.kind == "pallet"]
    if not pallets:
        return _anywhere(builder, rng)
    x, y = pallets[rng.integers(len(pallets))]
    toward = math.atan2(builder.camera.position[1] - y, builder.camera.position[0] - x) + rng.normal(0, 0.4)
    gap = rng.uniform(1.1, 1.8)
    return x + gap * math.cos(toward), y + gap * math.sin(toward)


def _on_walls(builder: Builder, rng: np.random.Generator, variety: float) -> None:
    """Gates, windows, pipes and columns along the back and the side walls."""
    width, depth, height = builder.room
    for _ in range(int(rng.integers(2, 9) * variety)):
        side, along = rng.integers(3), rng.uniform(-0.45, 0.45)
        origin, yaw = (
            ((along * width, depth), math.pi),
            ((-width / 2, (along + 0.5) * depth), -math.pi / 2),
            ((width / 2, (along + 0.5) * depth), math.pi / 2),
        )[side]
        place, kind = placer(origin, yaw, 0), rng.integers(4)
        grey = tinted(rng, (0.55, 0.56, 0.58), 0.3)
        if kind == 0:
            wide = rng.uniform(2.4, 3.6)
            builder.cuboids.append(place((0, 0, 0), (wide, 0.12, rng.uniform(2.6, 3.6)), grey, (1, 1, 9)))
        elif kind == 1:
            size = (rng.uniform(1.0, 2.4), 0.06, rng.uniform(0.8, 1.4))
            builder.cuboids.append(place((0, 0, rng.uniform(2.6, 4.0)), size, (0.98, 1.0, 1.0), (3, 1, 2)))
        elif kind == 2:
            builder.cuboids.append(place((0, 0, 0), (0.3, 0.5, height - 0.1), grey))
            builder.cuboids += [place((0, 0.02, 0.3 * k), (0.36, 0.6, 0.3), (YELLOW, BLACK)[k % 2]) for k in range(4)]
        else:
            builder.cuboids.append(place((0, 0, rng.uniform(2.2, 4.5)), (3.0, 0.3, 0.12), grey))


def _hanging(builder: Builder, rng: np.random.Generator) -> None:
    """A pole with a hook that hangs into the left or right side of the picture, near the camera."""
    camera = builder.camera
    side = 1 if rng.random() < 0.5 else -1
    ahead, aside = rng.uniform(1.6, 2.6), side * rng.uniform(0.38, 0.47) / camera.focal
    x, y, z = np.array(camera.position) + ahead * (camera.axes[2] + aside * camera.axes[0])
    low = float(z - rng.uniform(0.0, 0.6))
    # Its upper end leaves the picture and stays in front of the camera, whose view is tilted down.
    high = min(builder.room[2] - 0.1 - low, (ahead - 0.6) / math.sin(camera.pitch))
    wide = rng.uniform(0.06, 0.12)
    place = placer((float(x), float(y)), camera.yaw, 0)
    builder.cuboids += [
        place((0, 0, low), (wide, wide, high), tinted(rng, (0.20, 0.20, 0.22), 0.3)),
        place((0, 0, low - 0.1), (0.16, 0.12, 0.1), tinted(rng, YELLOW, 0.2)),
    ]
