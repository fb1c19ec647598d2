"""What stands in the warehouse and can be asked about, and functions that draw it as coloured boxes."""

import dataclasses
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import Point, Vector, corners, moved, overlap, rotated

KINDS = ("buffer", "pallet", "transporter", "shelf")
Color = tuple[float, float, float]  # RGB in 0..1
T = TypeVar("T")
Rng = np.random.Generator
# Name -> its colours, from percent of red, green and blue.
COLORS: dict[str, tuple[Color, ...]] = {
    name: tuple(tuple(part / 100 for part in color) for color in colors)
    for name, colors in json.loads(Path(__file__).with_name("palettes.json").read_text()).items()
}
PALLET: Vector = (1.2, 1.0, 0.14)  # metres: along, across, high
TRANSPORTER: Vector = (1.15, 0.75, 0.24)
CARDBOARD, WHITE, ORANGE = COLORS["objects"]


@dataclasses.dataclass(frozen=True)
class Thing:
    """An object that questions can be about."""

    number: int  # its id in the instance map, from 1
    kind: str  # one of KINDS
    position: Point  # centre on the floor, metres
    yaw: float  # counter-clockwise turn
    size: Point  # footprint (across, along), metres; for a buffer the middle of its painted line
    carrying: bool = False  # for a transporter, whether it carries a load

    def holds(self, point: Point, margin: float = 0.0) -> bool:
        """Whether a floor point lies in its footprint, widened by a margin in metres."""
        across, along = rotated((point[0] - self.position[0], point[1] - self.position[1]), -self.yaw)
        return abs(across) < self.size[0] / 2 + margin and abs(along) < self.size[1] / 2 + margin

    def outline(self) -> list[Point]:
        """Corners of the floor below it, that of its load where that is larger."""
        (x, y), (least_x, least_y) = self.size, PALLET[:2] if self.carrying else (0.0, 0.0)
        return corners(self.position, (max(x, least_x), max(y, least_y)), self.yaw)

    def is_half_inside(self, buffer: "Thing") -> bool:
        """Whether it is neither wholly inside of a buffer's rectangle nor wholly outside."""
        outline = self.outline()
        return not all(map(buffer.holds, outline)) and overlap(outline, buffer.outline())


@dataclasses.dataclass(frozen=True)
class Cuboid:
    """A box standing upright."""

    center: Vector  # metres
    size: Vector  # metres
    yaw: float  # counter-clockwise turn
    color: Color
    owner: int = 0  # number of the thing it belongs to, 0 for none
    cells: tuple[int, int, int] = (1, 1, 1)  # into how many parts dark seams divide it along each of its axes
    material: str = "plain"  # or "card" (cardboard) or "wood" (a pallet)

    def corners(self) -> np.ndarray:
        """Its eight corners, float64[8, 3], metres."""
        floor = corners(self.center[:2], self.size[:2], self.yaw)
        return np.array([(*point, self.center[2] + side * self.size[2] / 2) for side in (-1, 1) for point in floor])


Place = Callable[..., Cuboid]


def placer(origin: Point, yaw: float, owner: int = 0) -> Place:
    """Returns a function that puts a box, its bottom's centre given in the object's own frame."""

    def place(
        offset: Vector, size: Vector, color: Color, cells: Sequence[int] = (1, 1, 1), material: str = "plain"
    ) -> Cuboid:
        x, y = moved(origin, offset[:2], yaw)
        along, across, high = map(float, size)
        a, b, c = map(int, cells)
        return Cuboid((x, y, offset[2] + high / 2), (along, across, high), yaw, color, owner, (a, b, c), material)

    return place


def pick(rng: Rng, options: Sequence[T]) -> T:
    """One of several, each as likely as the others."""
    return options[int(rng.integers(len(options)))]


def tinted(rng: Rng, color: Color, spread: float = 0.1) -> Color:
    """A colour with another brightness and a slight tint."""
    shade = (1 + rng.normal(0, spread)) * (1 + rng.normal(0, 0.02, 3))
    return tuple(np.clip(np.array(color) * shade, 0.02, 1.0).tolist())


def pallet(rng: Rng, place: Place, _: Thing, base: float = 0.0) -> list[Cuboid]:
    """A pallet and on it cardboard boxes: a full block, two stacks, a half load, or loose boxes of several sizes."""
    wood = place((0, 0, base), PALLET, tinted(rng, pick(rng, COLORS["pallets"])), (6, 1, 1), "wood")
    card, style, base = tinted(rng, CARDBOARD, 0.18), rng.integers(4), base + PALLET[2]
    box = functools.partial(place, material="card")
    if style == 0:
        size = rng.uniform((0.95, 0.8, 0.5), (1.15, 0.98, 1.35))
        return [wood, box((0, 0, base), size, card, rng.integers(1, (4, 3, 4)))]
    boxes = [wood]
    if style == 1:
        for side in (-1, 1):
            place_across, wide, high = rng.uniform((-0.05, 0.7, 0.35), (0.05, 0.95, 1.2))
            color, cells = tinted(rng, card, 0.05), (1, *rng.integers(1, (3, 4)))
            boxes.append(box((side * 0.29, place_across, base), (0.54, wide, high), color, cells))
    elif style == 2:
        side = 1 if rng.random() < 0.5 else -1
        boxes.append(box((side * 0.27, 0, base), (0.58, 0.9, rng.uniform(0.5, 1.2)), card, (1, 2, 2)))
        across, high = rng.uniform((-0.2, 0.2), (0.2, 0.45))
        boxes.append(box((-side * 0.3, across, base), (0.45, 0.5, high), tinted(rng, card, 0.08)))
    else:
        for along, across in ((-0.32, -0.24), (0.3, -0.22), (-0.3, 0.24), (0.32, 0.22)):
            if rng.random() < 0.85 or len(boxes) == 1:
                size = rng.uniform((0.38, 0.34, 0.2), (0.58, 0.46, 0.5))
                boxes.append(box((along, across, base), size, tinted(rng, card, 0.08)))
                if rng.random() < 0.5:
                    above = rng.uniform((0.25, 0.25, 0.2), (0.4, 0.36, 0.4))
                    boxes.append(box((along, across, base + float(size[2])), above, tinted(rng, card, 0.08)))
    return boxes


def transporter(rng: Rng, place: Place, thing: Thing) -> list[Cuboid]:
    """A flat yellow vehicle, with a white deck when empty and a loaded pallet on top when not."""
    body, top = place((0, 0, 0), TRANSPORTER, tinted(rng, ORANGE, 0.05)), TRANSPORTER[2]
    if thing.carrying:
        return [body, *pallet(rng, place, thing, top)]
    return [body, place((0, 0, top), (0.8, 0.55, 0.04), WHITE, (3, 1, 1))]


def shelf(rng: Rng, place: Place, thing: Thing) -> list[Cuboid]:
    """A rack of two or three boards, most of their places filled with boxes."""
    length, deep = thing.size
    frame = tinted(rng, pick(rng, COLORS["shelves"]))
    levels, step = int(rng.integers(2, 4)), rng.uniform(0.9, 1.15)
    post = (0.09, 0.09, step * levels + 0.15)
    boxes = [place((x * length / 2, y * deep / 2, 0), post, frame) for x in (-1, 1) for y in (-1, 1)]
    slots = 2 if length < 2.6 else 3
    wide = length / slots
    for height in (level * step + 0.12 for level in range(levels)):
        boxes.append(place((0, 0, height), (length, deep, 0.08), frame))
        for slot in range(slots):
            if rng.random() < 0.9:
                size = (wide * rng.uniform(0.7, 0.92), 0.75, step * rng.uniform(0.4, 0.75))
                offset = ((slot + 0.5) * wide - length / 2, 0, height + 0.08)
                boxes.append(place(offset, size, tinted(rng, CARDBOARD, 0.2), (2, 1, 1), "card"))
    return boxes


Draw = Callable[[Rng, Place, Thing], list[Cuboid]]
DRAWN: dict[str, Draw] = {"pallet": pallet, "transporter": transporter, "shelf": shelf}
