"""Where things stand: buffers with pallets, pallets beside them, shelves, transporters, clutter.

Places are drawn where the camera sees them, so that nearly everything can be asked about.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from smolrgpt_jax.warehouse.scene import objects
from smolrgpt_jax.warehouse.scene.geometry import Camera, Point, in_rectangle, moved
from smolrgpt_jax.warehouse.scene.objects import Cuboid, Thing

ASPECT = 9 / 16  # height by width of the published pictures; taller pictures show more
NEAREST = 2.2  # metres ahead of the camera's ground point where objects begin
EMPTY_BUFFER = 0.03  # share of scenes whose counted buffer is empty: rare, as published
CLEAR_CHOICE = 1.15  # how much farther from the empty transporter the second closest pallet is


@dataclasses.dataclass(frozen=True)
class SceneLimits:
    """How full a scene may be, and how much cameras may differ.

    Attributes:
      min_pallets, max_pallets, max_buffers, max_transporters, max_shelves: objects; each that is seen is one more mask in a
        question.
      camera_variety: share of the ranges of the camera's height, reach and focal length that is used, about their middle: 1 all
        of them, 0 always the same. Its place and heading are drawn from their whole ranges. Metres can be read off a picture
        the sooner the less cameras differ.
      appearance_variety: how much lamps, surfaces, paint, clutter and camera pitch differ from one plain look: 0 not at all, 1
        as much as there is. Drawn with a generator of its own, so everything else stays.
    """

    min_pallets: int = 4
    max_pallets: int = 10
    max_buffers: int = 3
    max_transporters: int = 3
    max_shelves: int = 2
    camera_variety: float = 1.0
    appearance_variety: float = 1.0

    def __post_init__(self) -> None:
        if not 4 <= self.min_pallets <= self.max_pallets <= 10:
            raise ValueError(f"a scene has 4 to 10 pallets, asked for {self.min_pallets} to {self.max_pallets}")
        for name, least, most in (("buffers", 1, 3), ("transporters", 0, 3), ("shelves", 0, 2)):
            value = getattr(self, f"max_{name}")
            if not least <= value <= most:
                raise ValueError(f"max_{name} is {value}, must be {least} to {most}")
        for name in ("camera_variety", "appearance_variety"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}, must be 0 to 1")


class Builder:
    """Collects a scene's objects and keeps their footprints, taken as circles, apart."""

    GAP = 0.2  # metres between footprints

    def __init__(self, rng: np.random.Generator, room: tuple[float, float, float], camera: Camera):
        self.rng, self.room, self.camera = rng, room, camera
        self.things: list[Thing] = []
        self.cuboids: list[Cuboid] = []
        self.taken: list[tuple[Point, float]] = []

    def add(self, kind: str, position: Point, yaw: float, size: Point, radius: float, carrying: bool = False) -> Thing:
        """Adds a thing and its cuboids; ``radius`` of the floor round it is then taken."""
        number = len(self.things) + 1
        thing = Thing(number, kind, position, yaw, size, carrying)
        if kind == "pallet":
            self.cuboids += objects.pallet(self.rng, position, yaw, number)
        elif kind == "transporter":
            self.cuboids += objects.transporter(self.rng, position, yaw, number, carrying)
        elif kind == "shelf":
            self.cuboids += objects.shelf(self.rng, position, yaw, number, size[0])
        self.things.append(thing)
        if radius:
            self.taken.append((position, radius))
        return thing

    def is_free(self, position: Point, radius: float) -> bool:
        """Whether a circle on the floor keeps its distance from all that stands."""
        return all(math.dist(position, other) > radius + taken + self.GAP for other, taken in self.taken)

    def in_room(self, position: Point, margin: float) -> bool:
        """Whether a place is that many metres away from every wall."""
        width, depth, _ = self.room
        return abs(position[0]) < width / 2 - margin and margin < position[1] < depth - margin

    def sees(self, position: Point, height: float = 0.3, margin: float = 0.04) -> bool:
        """Whether a point above the floor is in the picture, by a margin in picture widths."""
        across, down, depth = self.camera.project(np.array([[*position, height]]))[0]
        return (
            depth > 0
            and self.camera.on_floor(position)[0] > NEAREST
            and abs(across) < 0.5 - margin
            and abs(down) < ASPECT / 2 - margin
        )

    def seen_place(self, radius: float) -> Point | None:
        """A free place on the floor that the camera sees, or None if the draw gives none.

        Half of the draws are uniform in the picture, which favours the foreground, and half on
        the floor, which favours the background.
        """
        rng = self.rng
        if rng.random() < 0.5:
            place = self.camera.floor_point(rng.uniform(-0.46, 0.46), rng.uniform(-0.46, 0.46) * ASPECT)
        else:
            width, depth, _ = self.room
            place = (rng.uniform(-0.5, 0.5) * width, rng.uniform(0, depth))
        if place is None or not self.in_room(place, 1.2) or not self.sees(place):
            return None
        return place if self.is_free(place, radius) else None

    def has_clear_choice(self, place: Point) -> bool:
        """Whether one pallet is clearly closer to a place than all others."""
        distances = sorted(math.dist(place, thing.position) for thing in self.things if thing.kind == "pallet")
        return len(distances) > 1 and distances[1] > CLEAR_CHOICE * distances[0]

    def outside_buffers(self, place: Point, margin: float) -> bool:
        """Whether a place is outside of all buffers, each widened by a margin in metres."""
        return not any(
            in_rectangle(place, b.position, b.size, b.yaw, margin) for b in self.things if b.kind == "buffer"
        )


def _layout(rng: np.random.Generator) -> tuple[Point, Point, list[Point]]:
    """Shape of the buffers: size, step from one to the next, and the four places for pallets."""
    style = rng.integers(3)
    gap = rng.uniform(0.7, 1.6)
    if style == 0:  # long ones, one behind the other
        size = (rng.uniform(5.6, 6.4), rng.uniform(1.8, 2.2))
        return size, (0.0, size[1] + gap), [((i - 1.5) * size[0] * 0.23, 0.0) for i in range(4)]
    if style == 1:  # long ones side by side
        size = (rng.uniform(1.9, 2.3), rng.uniform(5.4, 6.2))
        return size, (size[0] + gap, 0.0), [(0.0, (i - 1.5) * size[1] * 0.23) for i in range(4)]
    size = (rng.uniform(2.9, 3.3), rng.uniform(2.9, 3.3))
    places = [(i * size[0] * 0.22, j * size[1] * 0.22) for i in (-1, 1) for j in (-1, 1)]
    return size, (size[0] + gap, 0.0) if rng.random() < 0.6 else (0.0, size[1] + gap), places


def place_buffers(builder: Builder, limits: SceneLimits) -> int:
    """Places buffers and pallets; returns the number of the buffer in which counts are uniform."""
    rng = builder.rng
    wanted = int(rng.choice([1, 2, 3], p=[0.1, 0.3, 0.6]))
    wanted = min(wanted, limits.max_buffers)
    middle = builder.camera.floor_point(0.0, 0.0)
    for attempt in range(400):
        number = max(wanted - attempt // 40, 1)  # fewer where so many do not fit into the view
        size, step, slots = _layout(rng)
        center = (middle[0] + rng.normal(0, 0.6), middle[1] + rng.normal(0, 0.8))
        yaw = rng.normal(0, 0.12) - builder.camera.yaw * rng.uniform(0, 1)
        places = [
            moved(center, ((i - (number - 1) / 2) * step[0], (i - (number - 1) / 2) * step[1]), yaw)
            for i in range(number)
        ]
        filled = [[moved(place, slot, yaw) for slot in slots] for place in places]
        if all(builder.sees(slot) and builder.in_room(slot, 1.0) for group in filled for slot in group):
            break
    buffers = [builder.add("buffer", place, yaw, size, 0.0) for place in places]
    total = int(rng.integers(limits.min_pallets, limits.max_pallets + 1))
    counted = int(rng.integers(number))
    counts = [0] * number
    # Drawn before and independently of all others, so a question's length tells nothing about it.
    counts[counted] = 0 if rng.random() < EMPTY_BUFFER else int(rng.integers(1, 5))
    left = total - counts[counted]
    for other in rng.permutation([i for i in range(number) if i != counted]):
        counts[other] = int(rng.integers(0, min(4, left) + 1))
        left -= counts[other]
    for group, count in zip(filled, counts):
        for slot in rng.permutation(4)[:count]:
            place = moved(group[slot], (rng.normal(0, 0.05), rng.normal(0, 0.05)), yaw)
            turn = yaw + rng.normal(0, 0.08) + (math.pi / 2 if size[0] > 4 else 0.0)
            builder.add("pallet", place, turn, objects.PALLET[:2], 0.65)
    for _ in range(100 * left):
        if left == 0:
            break
        place = builder.seen_place(0.75)
        if place is not None and builder.outside_buffers(place, 0.85):
            builder.add("pallet", place, rng.uniform(0, math.pi), objects.PALLET[:2], 0.7)
            left -= 1
    return buffers[counted].number


def place_transporters(builder: Builder, limits: SceneLimits) -> None:
    """Transporters well inside or well outside of buffers; all but one carry a pallet."""
    rng = builder.rng
    wanted = min(int(rng.choice([0, 1, 2, 3], p=[0.03, 0.17, 0.35, 0.45])), limits.max_transporters)
    made, empty = 0, int(rng.integers(max(wanted, 1)))
    for _ in range(120):
        if made == wanted:
            return
        place = builder.seen_place(0.7)
        if place is None:
            continue
        if made == empty and not builder.has_clear_choice(place):
            continue
        # Either well inside of a buffer or well outside.
        if builder.outside_buffers(place, 0.7) or not builder.outside_buffers(place, -0.5):
            builder.add(
                "transporter", place, rng.uniform(0, math.pi), objects.TRANSPORTER[:2], 0.7, carrying=made != empty
            )
            made += 1


def place_shelves(builder: Builder, limits: SceneLimits) -> None:
    """Racks along the walls or standing free at the sides, wherever their middle is in view."""
    rng = builder.rng
    width, depth, _ = builder.room
    wanted = min(int(rng.choice([0, 1, 2], p=[0.1, 0.4, 0.5])), limits.max_shelves)
    for _ in range(150):
        if wanted == 0:
            return
        length = rng.uniform(2.0, 3.6)
        wall = rng.integers(4)
        if wall == 0:
            place, yaw = (rng.uniform(-0.5, 0.5) * (width - length), depth - 0.7), 0.0
        elif wall == 1:
            place, yaw = (-width / 2 + 0.7, rng.uniform(3, depth - 2)), math.pi / 2
        elif wall == 2:
            place, yaw = (width / 2 - 0.7, rng.uniform(3, depth - 2)), math.pi / 2
        else:
            place, yaw = (rng.uniform(-0.4, 0.4) * width, rng.uniform(5, depth - 2)), rng.uniform(0, math.pi)
        ends = [moved(place, (share * length / 2, 0.0), yaw) for share in (-0.7, 0.0, 0.7)]
        if (
            builder.sees(place, 1.0, 0.03)
            and all(builder.is_free(end, 0.6) for end in ends)
            and all(builder.outside_buffers(end, 0.6) for end in ends)
        ):
            builder.add("shelf", place, yaw, (length, 0.9), 0.0)
            builder.taken += [(end, 0.6) for end in ends]
            wanted -= 1


def place_clutter(builder: Builder) -> None:
    """Things along the walls and a few on the floor that no question is about."""
    rng = builder.rng
    width, depth, _ = builder.room
    for _ in range(int(rng.integers(3, 8))):
        if rng.random() < 0.6:
            wall = rng.integers(3)
            along = rng.uniform(-0.45, 0.45)
            place, yaw = (
                ((along * width, depth - 0.6), 0.0),
                ((-width / 2 + 0.6, (along + 0.5) * depth), math.pi / 2),
                ((width / 2 - 0.6, (along + 0.5) * depth), math.pi / 2),
            )[wall]
        else:
            place, yaw = builder.seen_place(0.75), rng.uniform(0, math.pi)
        if (
            place is not None
            and builder.is_free(place, 0.75)
            and builder.outside_buffers(place, 0.6)
            and builder.camera.on_floor(place)[0] > NEAREST
        ):
            builder.cuboids += objects.clutter(rng, place, yaw)
            builder.taken.append((place, 0.75))
