"""Warehouse scenes: what stands where, in metres.

World frame: x to the right, y away from the camera's wall, z up; the floor is z = 0. Every number of a scene comes from one
generator, so a scene is a function of its seed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

KINDS = ("pallet", "buffer", "transporter", "shelf")


@dataclass(frozen=True)
class Cuboid:
    """A box: centre float64[3] and size float64[3] in metres, yaw in radians, colour in 0..1, owner = id of its object (0: none)."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float
    color: tuple[float, float, float]
    owner: int = 0


@dataclass(frozen=True)
class Thing:
    """An object that questions can ask about.

    number: its id in the instance map, from 1; position: (x, y) of its centre on the floor, metres; size: (width, depth) of a
    buffer's rectangle; carrying: for a transporter, whether it carries a load; inside: for a pallet, number of the buffer it
    stands in, or 0.
    """

    number: int
    kind: str
    position: tuple[float, float]
    yaw: float
    size: tuple[float, float] = (0.0, 0.0)
    carrying: bool = False
    inside: int = 0


@dataclass(frozen=True)
class Camera:
    """position: metres; yaw: radians from the y axis, positive to the right; pitch: radians below the horizon; focal: in picture widths."""

    position: tuple[float, float, float]
    yaw: float
    pitch: float
    focal: float

    def axes(self) -> np.ndarray:
        """Rows: right, down and forward in the world, float64[3, 3]."""
        cy, sy, cp, sp = math.cos(self.yaw), math.sin(self.yaw), math.cos(self.pitch), math.sin(self.pitch)
        forward = np.array([sy * cp, cy * cp, -sp])
        right = np.array([cy, -sy, 0.0])
        return np.stack([right, np.cross(forward, right), forward])


@dataclass(frozen=True)
class Scene:
    things: tuple[Thing, ...]
    cuboids: tuple[Cuboid, ...]
    camera: Camera
    room: tuple[float, float, float]  # x from -w/2 to w/2, y from 0 to depth, z from 0 to height
    floor_color: tuple[float, float, float]
    wall_color: tuple[float, float, float]
    stripe_color: tuple[float, float, float]
    paint_color: tuple[float, float, float]
    light: tuple[float, float, float]
    ambient: float
    texture_seed: int
    target_buffer: int = 0  # the buffer that counting asks about
    extra: dict = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Thing]:
        return [t for t in self.things if t.kind == kind]


@dataclass(frozen=True)
class SceneLimits:
    """How full a scene may be."""

    min_pallets: int = 4
    max_pallets: int = 10
    max_transporters: int = 3


PALLET = (1.2, 1.0, 0.15)
TRANSPORTER = (1.1, 0.75, 0.22)
CLEARANCE = 0.25  # metres between footprints


def _rotate(x: float, y: float, yaw: float) -> tuple[float, float]:
    c, s = math.cos(yaw), math.sin(yaw)
    return c * x - s * y, s * x + c * y


def _vary(rng: np.random.Generator, color: tuple[float, float, float], amount: float = 0.06) -> tuple[float, float, float]:
    return tuple(float(v) for v in np.clip(np.array(color) * (1 + rng.normal(0, amount, 3)), 0.02, 1.0))


class _Builder:
    """Collects objects while keeping their footprints (circles) apart."""

    def __init__(self, rng: np.random.Generator, room: tuple[float, float, float]):
        self.rng, self.room = rng, room
        self.things: list[Thing] = []
        self.cuboids: list[Cuboid] = []
        self.taken: list[tuple[float, float, float]] = []

    def number(self) -> int:
        return len(self.things) + 1

    def free(self, x: float, y: float, radius: float) -> bool:
        return all((x - a) ** 2 + (y - b) ** 2 > (radius + r + CLEARANCE) ** 2 for a, b, r in self.taken)

    def local(self, x: float, y: float, yaw: float, offset: tuple[float, float, float], size, color, owner: int) -> None:
        dx, dy = _rotate(offset[0], offset[1], yaw)
        self.cuboids.append(Cuboid((x + dx, y + dy, offset[2] + size[2] / 2), tuple(map(float, size)), yaw, color, owner))

    def load(self, x: float, y: float, yaw: float, base: float, owner: int) -> None:
        """Cardboard boxes on a pallet or transporter: one block, two stacks, or an uneven group."""
        rng = self.rng
        card = _vary(rng, tuple(rng.uniform(0.6, 1.15) * v for v in (0.62, 0.45, 0.28)))
        style = rng.integers(3)
        if style == 0:
            self.local(x, y, yaw, (0, 0, base), (*rng.uniform(0.7, 1.05, 2), rng.uniform(0.4, 1.1)), card, owner)
        elif style == 1:
            for side in (-1, 1):
                height = rng.uniform(0.35, 1.0)
                self.local(x, y, yaw, (side * 0.28, 0, base), (0.5, rng.uniform(0.6, 0.9), height), _vary(rng, card), owner)
        else:
            for i, j in ((-1, -1), (1, -1), (0, 1)):
                self.local(x, y, yaw, (i * 0.27, j * 0.22, base), (0.48, 0.4, rng.uniform(0.25, 0.9)), _vary(rng, card), owner)

    def pallet(self, x: float, y: float, yaw: float, inside: int) -> None:
        number = self.number()
        blue = self.rng.random() < 0.5
        self.local(x, y, yaw, (0, 0, 0), PALLET, _vary(self.rng, (0.16, 0.27, 0.55) if blue else (0.5, 0.38, 0.24)), number)
        self.load(x, y, yaw, PALLET[2], number)
        self.things.append(Thing(number, "pallet", (x, y), yaw, inside=inside))
        self.taken.append((x, y, 0.78))

    def transporter(self, x: float, y: float, yaw: float, carrying: bool) -> None:
        number = self.number()
        self.local(x, y, yaw, (0, 0, 0), TRANSPORTER, _vary(self.rng, (0.95, 0.72, 0.08)), number)
        self.local(x, y, yaw, (0, 0, TRANSPORTER[2]), (0.8, 0.5, 0.05), (0.85, 0.85, 0.82), number)
        if carrying:
            self.load(x, y, yaw, TRANSPORTER[2] + 0.05, number)
        self.things.append(Thing(number, "transporter", (x, y), yaw, carrying=carrying))
        self.taken.append((x, y, 0.68))

    def shelf(self, x: float, y: float, yaw: float) -> None:
        rng, number = self.rng, self.number()
        length, depth, levels = rng.uniform(2.2, 3.4), 0.9, int(rng.integers(2, 4))
        frame = _vary(rng, [(0.75, 0.25, 0.12), (0.12, 0.25, 0.62), (0.2, 0.45, 0.3)][rng.integers(3)])
        step = rng.uniform(0.95, 1.2)
        for side in (-1, 1):
            self.local(x, y, yaw, (side * length / 2, 0, 0), (0.1, depth, step * levels), frame, number)
        for level in range(levels):
            self.local(x, y, yaw, (0, 0, level * step), (length, depth, 0.1), frame, number)
            width = length / 2
            for slot in (-0.5, 0.5):
                if rng.random() < 0.85:
                    size = (width * rng.uniform(0.65, 0.92), 0.75, step * rng.uniform(0.4, 0.75))
                    self.local(x, y, yaw, (slot * width, 0, level * step + 0.1), size, _vary(rng, (0.62, 0.45, 0.28), 0.15), number)
        self.things.append(Thing(number, "shelf", (x, y), yaw))
        self.taken += [(x + _rotate(o, 0, yaw)[0], y + _rotate(o, 0, yaw)[1], 0.75) for o in (-length / 3, 0, length / 3)]

    def clutter(self, x: float, y: float) -> None:
        color = tuple(float(v) for v in self.rng.uniform(0.15, 0.75, 3))
        size = self.rng.uniform(0.3, 0.9, 3)
        self.local(x, y, self.rng.uniform(0, math.pi), (0, 0, 0), size, color, 0)
        self.taken.append((x, y, 0.6))


def make_scene(rng: np.random.Generator, limits: SceneLimits) -> Scene:
    """One scene: 1 to 3 buffers in a row, pallets in and beside them, transporters of which at most one is empty, shelves, clutter."""
    width, depth = rng.uniform(13, 17), rng.uniform(14, 18)
    build = _Builder(rng, (width, depth, 7.5))
    target = _buffers_and_pallets(build, limits)
    _loose_objects(build, limits)
    _shelves(build)
    for _ in range(rng.integers(0, 4)):
        x, y = rng.uniform(-width / 2 + 1, width / 2 - 1), rng.uniform(3, depth - 1)
        if build.free(x, y, 0.6):
            build.clutter(x, y)
    grey = rng.uniform(0.28, 0.55)
    wall = rng.uniform(0.55, 0.95) * rng.uniform(0.75, 1.0, 3)
    light = np.array([rng.uniform(-0.6, 0.6), rng.uniform(-0.6, 0.6), 1.0])
    camera = Camera(
        (rng.uniform(-2.0, 2.0), rng.uniform(0.2, 1.0), rng.uniform(4.0, 6.5)), rng.normal(0, 0.12), rng.uniform(0.5, 0.72), rng.uniform(0.62, 0.78)
    )
    return Scene(
        things=tuple(build.things),
        cuboids=tuple(build.cuboids),
        camera=camera,
        room=build.room,
        floor_color=_vary(rng, (grey, grey, grey), 0.03),
        wall_color=tuple(map(float, wall)),
        stripe_color=_vary(rng, (0.1, 0.25, 0.6), 0.1),
        paint_color=[(0.9, 0.72, 0.12), (0.92, 0.48, 0.1), (0.15, 0.35, 0.75)][rng.integers(3)],
        light=tuple(light / np.linalg.norm(light)),
        ambient=float(rng.uniform(0.45, 0.65)),
        texture_seed=int(rng.integers(2**31)),
        target_buffer=target,
    )


def _buffers_and_pallets(build: _Builder, limits: SceneLimits) -> int:
    """Buffers side by side or one behind the other, each with its pallets; returns the number of the one to count in."""
    rng = build.rng
    buffers = int(rng.choice([1, 2, 3], p=[0.1, 0.3, 0.6]))
    pallets = int(rng.integers(limits.min_pallets, limits.max_pallets + 1))
    beside = rng.random() < 0.7
    size = (rng.uniform(2.5, 2.9), rng.uniform(3.8, 4.6))
    gap = rng.uniform(0.7, 1.4)
    # The counted buffer's pallets are uniform in 1..4 whatever the number of pallets, so the question's length tells nothing.
    counts = [0] * buffers
    target = int(rng.integers(buffers))
    counts[target] = 0 if rng.random() < 0.04 else int(rng.integers(1, 5))
    left = pallets - counts[target]
    for other in rng.permutation([i for i in range(buffers) if i != target]):
        counts[other] = int(rng.integers(0, min(4, left) + 1))
        left -= counts[other]
    center = np.array([rng.uniform(-1.0, 1.0), rng.uniform(7.0, 8.5)])
    turn = rng.normal(0, 0.12)
    across = size if beside else (size[1], size[0])
    pitch = (across[0] if beside else across[1]) + gap
    first = len(build.things) + 1
    places = []
    for i in range(buffers):
        offset = (i - (buffers - 1) / 2) * pitch
        dx, dy = _rotate(*((offset, 0.0) if beside else (0.0, offset)), turn)
        places.append((center[0] + dx, center[1] + dy))
        build.things.append(Thing(build.number(), "buffer", places[-1], turn, size=across))
    for i, (x, y) in enumerate(places):
        slots = [(a, b) for a in (-1, 1) for b in (-1, 1)]
        for slot in rng.permutation(4)[: counts[i]]:
            a, b = slots[slot]
            dx, dy = _rotate(a * across[0] / 4 + rng.normal(0, 0.05), b * across[1] / 4 + rng.normal(0, 0.1), turn)
            build.pallet(x + dx, y + dy, turn + rng.normal(0, 0.15) + (math.pi / 2 if not beside else 0.0), first + i)
    build.taken += [(x, y, 0.0) for x, y in places]
    _loose_pallets(build, left, places, across, turn)
    return first + target


def outside_all(x: float, y: float, places, size: tuple[float, float], turn: float, margin: float) -> bool:
    """Whether a point is at least `margin` metres outside every buffer rectangle."""
    for bx, by in places:
        dx, dy = _rotate(x - bx, y - by, -turn)
        if abs(dx) < size[0] / 2 + margin and abs(dy) < size[1] / 2 + margin:
            return False
    return True


def _loose_pallets(build: _Builder, count: int, places, size, turn: float) -> None:
    rng, (width, depth, _) = build.rng, build.room
    for _ in range(60):
        if count == 0:
            return
        x, y = rng.uniform(-width / 2 + 1.5, width / 2 - 1.5), rng.uniform(4.5, depth - 2.0)
        if build.free(x, y, 0.78) and outside_all(x, y, places, size, turn, 0.9):
            build.pallet(x, y, rng.uniform(0, math.pi), 0)
            count -= 1


def _loose_objects(build: _Builder, limits: SceneLimits) -> None:
    """Transporters: exactly one empty among those there are."""
    rng, (width, depth, _) = build.rng, build.room
    buffers = [t for t in build.things if t.kind == "buffer"]
    wanted = int(rng.integers(1, limits.max_transporters + 1))
    empty = int(rng.integers(wanted))
    made = 0
    for _ in range(80):
        if made == wanted:
            return
        x, y = rng.uniform(-width / 2 + 1.5, width / 2 - 1.5), rng.uniform(4.0, depth - 2.5)
        clear = outside_all(x, y, [b.position for b in buffers], buffers[0].size, buffers[0].yaw, 0.7)
        if build.free(x, y, 0.68) and (clear or rng.random() < 0.1):
            build.transporter(x, y, rng.uniform(0, math.pi), carrying=made != empty)
            made += 1


def _shelves(build: _Builder) -> None:
    rng, (width, depth, _) = build.rng, build.room
    sides = rng.permutation([-1, 1])[: int(rng.choice([0, 1, 2], p=[0.1, 0.4, 0.5]))]
    for side in sides:
        if rng.random() < 0.6:
            build.shelf(side * (width / 2 - 0.8), rng.uniform(8.0, depth - 2.5), math.pi / 2)
        else:
            build.shelf(side * rng.uniform(2.5, width / 2 - 2.5), depth - 0.8, 0.0)
