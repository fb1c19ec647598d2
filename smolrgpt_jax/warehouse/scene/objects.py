"""What stands in the warehouse, as coloured boxes: pallets, transporters, shelves, clutter.

Every function returns the cuboids of one object at a place on the floor; the generator decides
its size, colour and load.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import Point, moved

KINDS = ("buffer", "pallet", "transporter", "shelf")
Color = tuple[float, float, float]

PALLET = (1.2, 1.0, 0.14)  # metres: along, across, high
TRANSPORTER = (1.15, 0.75, 0.24)
PALLET_COLORS: tuple[Color, ...] = ((0.55, 0.42, 0.27), (0.14, 0.14, 0.15), (0.13, 0.25, 0.52), (0.15, 0.42, 0.45))
SHELF_COLORS: tuple[Color, ...] = ((0.15, 0.28, 0.60), (0.62, 0.24, 0.14), (0.25, 0.30, 0.34))
CLUTTER_COLORS: tuple[Color, ...] = ((0.45, 0.47, 0.50), (0.20, 0.35, 0.62), (0.28, 0.45, 0.30), (0.70, 0.70, 0.68))
CARDBOARD: Color = (0.66, 0.50, 0.33)
WHITE: Color = (0.82, 0.82, 0.80)


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object that questions can be about.

    Attributes:
      number: its id in the instance map, from 1.
      kind: one of KINDS.
      position: centre on the floor, metres.
      yaw: counter-clockwise turn.
      size: footprint (across, along), metres; for a buffer the middle of its painted line.
      carrying: for a transporter, whether it carries a load.
    """

    number: int
    kind: str
    position: Point
    yaw: float
    size: Point
    carrying: bool = False


@dataclasses.dataclass(frozen=True)
class Cuboid:
    """A box standing upright.

    Attributes:
      center, size: metres; yaw: counter-clockwise turn.
      color: RGB in 0..1.
      owner: number of the thing it belongs to, 0 for none.
      cells: into how many parts dark seams divide it along each of its axes.
      material: "card" (cardboard), "wood" (a pallet) or "plain".
    """

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    color: Color
    owner: int = 0
    cells: tuple[int, int, int] = (1, 1, 1)
    material: str = "plain"

    def corners(self) -> np.ndarray:
        """Its eight corners, float64[8, 3], metres."""
        along, across, high = (size / 2 for size in self.size)
        points = []
        for x, y in ((-along, -across), (along, -across), (along, across), (-along, across)):
            place = moved(self.center[:2], (x, y), self.yaw)
            points += [(*place, self.center[2] - high), (*place, self.center[2] + high)]
        return np.array(points)


Place = Callable[..., Cuboid]


def tinted(rng: np.random.Generator, color: Color, spread: float = 0.1) -> Color:
    """A colour with another brightness and a slight tint."""
    shade = (1 + rng.normal(0, spread)) * (1 + rng.normal(0, 0.02, 3))
    red, green, blue = np.clip(np.array(color) * shade, 0.02, 1.0)
    return float(red), float(green), float(blue)


def placer(origin: Point, yaw: float, owner: int) -> Place:
    """Returns a function that puts a box, its bottom's centre given in the object's own frame."""

    def place(
        offset: tuple[float, float, float],
        size: tuple[float, float, float],
        color: Color,
        cells: tuple[int, int, int] = (1, 1, 1),
        material: str = "plain",
    ) -> Cuboid:
        x, y = moved(origin, (offset[0], offset[1]), yaw)
        along, across, high = (float(value) for value in size)
        return Cuboid((x, y, offset[2] + high / 2), (along, across, high), yaw, color, owner, cells, material)

    return place


def _load(rng: np.random.Generator, place: Place, base: float) -> list[Cuboid]:
    """Cardboard boxes: a full block, two stacks, a half load, or loose boxes of several sizes."""
    card = tinted(rng, CARDBOARD, 0.18)
    style = rng.integers(4)
    if style == 0:
        size = (rng.uniform(0.95, 1.15), rng.uniform(0.8, 0.98), rng.uniform(0.5, 1.35))
        cells = (int(rng.integers(1, 4)), int(rng.integers(1, 3)), int(rng.integers(1, 4)))
        return [place((0, 0, base), size, card, cells, "card")]
    if style == 1:
        return [
            place(
                (side * 0.29, rng.uniform(-0.05, 0.05), base),
                (0.54, rng.uniform(0.7, 0.95), rng.uniform(0.35, 1.2)),
                tinted(rng, card, 0.05),
                (1, int(rng.integers(1, 3)), int(rng.integers(1, 4))),
                "card",
            )
            for side in (-1, 1)
        ]
    if style == 2:
        side = 1 if rng.random() < 0.5 else -1
        high = rng.uniform(0.5, 1.2)
        boxes = [place((side * 0.27, 0, base), (0.58, 0.9, high), card, (1, 2, 2), "card")]
        return boxes + [
            place(
                (-side * 0.3, rng.uniform(-0.2, 0.2), base),
                (0.45, 0.5, rng.uniform(0.2, 0.45)),
                tinted(rng, card, 0.08),
                material="card",
            )
        ]
    boxes = []
    for along, across in ((-0.32, -0.24), (0.3, -0.22), (-0.3, 0.24), (0.32, 0.22)):
        if rng.random() < 0.85 or not boxes:
            size = (rng.uniform(0.38, 0.58), rng.uniform(0.34, 0.46), rng.uniform(0.2, 0.5))
            boxes.append(place((along, across, base), size, tinted(rng, card, 0.08), material="card"))
            if rng.random() < 0.5:
                size_above = (rng.uniform(0.25, 0.4), rng.uniform(0.25, 0.36), rng.uniform(0.2, 0.4))
                boxes.append(
                    place((along, across, base + size[2]), size_above, tinted(rng, card, 0.08), material="card")
                )
    return boxes


def pallet(rng: np.random.Generator, origin: Point, yaw: float, owner: int) -> list[Cuboid]:
    """A loaded pallet."""
    place = placer(origin, yaw, owner)
    wood = tinted(rng, PALLET_COLORS[rng.integers(len(PALLET_COLORS))])
    return [place((0, 0, 0), PALLET, wood, (6, 1, 1), "wood"), *_load(rng, place, PALLET[2])]


def transporter(rng: np.random.Generator, origin: Point, yaw: float, owner: int, carrying: bool) -> list[Cuboid]:
    """A flat yellow vehicle, with a white deck when empty and a loaded pallet on top when not."""
    place = placer(origin, yaw, owner)
    top = TRANSPORTER[2]
    body = place((0, 0, 0), TRANSPORTER, tinted(rng, (0.93, 0.68, 0.10), 0.05))
    if not carrying:
        return [body, place((0, 0, top), (0.8, 0.55, 0.04), WHITE, (3, 1, 1))]
    wood = tinted(rng, PALLET_COLORS[rng.integers(len(PALLET_COLORS))])
    return [body, place((0, 0, top), PALLET, wood, (6, 1, 1), "wood"), *_load(rng, place, top + PALLET[2])]


def shelf(rng: np.random.Generator, origin: Point, yaw: float, owner: int, length: float) -> list[Cuboid]:
    """A rack of two or three boards, most of their places filled with boxes."""
    place = placer(origin, yaw, owner)
    frame = tinted(rng, SHELF_COLORS[rng.integers(len(SHELF_COLORS))])
    levels, step, deep = int(rng.integers(2, 4)), rng.uniform(0.9, 1.15), 0.9
    high = step * levels + 0.15
    boxes = [place((x * length / 2, y * deep / 2, 0), (0.09, 0.09, high), frame) for x in (-1, 1) for y in (-1, 1)]
    slots = 2 if length < 2.6 else 3
    for level in range(levels):
        height = level * step + 0.12
        boxes.append(place((0, 0, height), (length, deep, 0.08), frame))
        for slot in range(slots):
            if rng.random() < 0.9:
                wide = length / slots
                size = (wide * rng.uniform(0.7, 0.92), 0.75, step * rng.uniform(0.4, 0.75))
                boxes.append(
                    place(
                        ((slot + 0.5) * wide - length / 2, 0, height + 0.08),
                        size,
                        tinted(rng, CARDBOARD, 0.2),
                        (2, 1, 1),
                        "card",
                    )
                )
    return boxes


def clutter(rng: np.random.Generator, origin: Point, yaw: float) -> list[Cuboid]:
    """A crate, a barrel-like bin or a table with things on it; nobody asks about these."""
    place = placer(origin, yaw, 0)
    color = tinted(rng, CLUTTER_COLORS[rng.integers(len(CLUTTER_COLORS))], 0.2)
    style = rng.integers(3)
    if style == 0:
        return [place((0, 0, 0), tuple(rng.uniform(0.35, 0.8, 3)), color)]
    if style == 1:
        return [
            place((0, 0, 0), (0.5, 0.5, rng.uniform(0.7, 1.0)), color),
            place((0, 0, 1.0), (0.55, 0.55, 0.06), tinted(rng, color)),
        ]
    legs = [place((x * 0.65, y * 0.25, 0), (0.06, 0.06, 0.75), (0.3, 0.3, 0.32)) for x in (-1, 1) for y in (-1, 1)]
    things = [
        place(
            (x, 0, 0.8), tuple(rng.uniform(0.2, 0.4, 3)), tinted(rng, CLUTTER_COLORS[rng.integers(len(CLUTTER_COLORS))])
        )
        for x in (-0.4, 0.35)
    ]
    return [*legs, place((0, 0, 0.75), (1.4, 0.6, 0.05), color), *things]
