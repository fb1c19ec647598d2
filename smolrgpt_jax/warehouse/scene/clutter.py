"""Things that no question is about: they stand in the way, hide parts and make scenes differ."""

from collections.abc import Callable
from pathlib import Path

from smolrgpt_jax.files import read_json
from smolrgpt_jax.warehouse.scene.objects import CARDBOARD, COLORS, Color, Cuboid, Place, Rng, pick, tinted

YELLOW, BLACK, STEEL, LEGS, COLUMN, CONE, BAND, TROLLEY, CLADDING, PANE, POLE = COLORS["clutter"]
Draw = Callable[[Rng, Place], list[Cuboid]]
SIDES = (-1, 1)
# Name -> boxes: the middle of the bottom, the size, both in metres, and the part whose colour it has.
SHAPES = read_json(Path(__file__).with_name("shapes.json"), dict)


def shaped(place: Place, name: str, **colors: Color) -> list[Cuboid]:
    return [place(offset, size, colors[part]) for offset, size, part in SHAPES[name]]


def furniture(rng: Rng, place: Place) -> list[Cuboid]:
    """A crate, a barrel-like bin or a table with things on it."""
    color, style = tinted(rng, pick(rng, COLORS["furniture"]), 0.2), rng.integers(3)
    if style == 0:
        return [place((0, 0, 0), rng.uniform(0.35, 0.8, 3), color)]
    if style == 1:
        bin_ = place((0, 0, 0), (0.5, 0.5, rng.uniform(0.7, 1.0)), color)
        return [bin_, place((0, 0, 1.0), (0.55, 0.55, 0.06), tinted(rng, color))]
    boxes = [place((x * 0.65, y * 0.25, 0), (0.06, 0.06, 0.75), LEGS) for x in SIDES for y in SIDES]
    boxes.append(place((0, 0, 0.75), (1.4, 0.6, 0.05), color))
    for x in (-0.4, 0.35):
        boxes.append(place((x, 0, 0.8), rng.uniform(0.2, 0.4, 3), tinted(rng, pick(rng, COLORS["furniture"]))))
    return boxes


def person(rng: Rng, place: Place) -> list[Cuboid]:
    """Somebody who walks, with or without a helmet."""
    skin, trousers, shirt = (tinted(rng, pick(rng, COLORS[name])) for name in ("skin", "clothes", "clothes"))
    step, high = rng.uniform(0.0, 0.16), rng.uniform(0.92, 1.08)
    boxes = [place((x * 0.09, x * step, 0), (0.14, 0.17, 0.82 * high), trousers) for x in SIDES]
    boxes.append(place((0, 0, 0.82 * high), (0.40, 0.22, 0.58 * high), shirt))
    boxes.append(place((0, 0, 1.44 * high), (0.17, 0.20, 0.24 * high), skin))
    boxes += [place((x * 0.25, -x * step, 0.78 * high), (0.10, 0.13, 0.58 * high), shirt) for x in SIDES]
    if rng.random() < 0.6:
        boxes.append(place((0, 0, 1.64 * high), (0.22, 0.25, 0.10), tinted(rng, COLORS["clothes"][rng.integers(1, 4)])))
    return boxes


def rings(place: Place, number: int, high: float, along: float, across: float, aside: float = 0.0) -> list[Cuboid]:
    """Yellow and black rings upon each other round a column's foot."""
    return [place((0, aside, high * k), (along, across, high), (YELLOW, BLACK)[k % 2]) for k in range(number)]


def pillar(rng: Rng, place: Place) -> list[Cuboid]:
    """A column to the ceiling whose foot has black and yellow rings."""
    wide = rng.uniform(0.3, 0.5)
    foot = rings(place, 5, 0.25, wide + 0.08, wide + 0.08)
    return [*foot, place((0, 0, 1.25), (wide, wide, 6.0), tinted(rng, COLUMN))]


def cone(rng: Rng, place: Place) -> list[Cuboid]:
    """A traffic cone in three steps."""
    return shaped(place, "cone", cone=tinted(rng, CONE), band=BAND)


def crates(rng: Rng, place: Place) -> list[Cuboid]:
    """A heap of boxes without a pallet."""
    color, boxes = CARDBOARD if rng.random() < 0.6 else pick(rng, COLORS["furniture"]), []
    for x, y in ((-0.3, -0.25), (0.28, -0.2), (-0.2, 0.3), (0.32, 0.28)):
        base = 0.0
        for _ in range(int(rng.integers(0, 4))):
            size = rng.uniform((0.3, 0.3, 0.2), (0.55, 0.5, 0.45))
            boxes.append(place((x, y, base), size, tinted(rng, color, 0.12), material="card"))
            base += float(size[2])
    return boxes


def trolley(rng: Rng, place: Place) -> list[Cuboid]:
    """A cart with two or three decks and what lies on them."""
    frame, decks = tinted(rng, TROLLEY, 0.25), int(rng.integers(2, 4))
    boxes = [place((x * 0.45, y * 0.28, 0.08), (0.05, 0.05, 0.55 * decks), frame) for x in SIDES for y in SIDES]
    for k in range(decks):
        boxes.append(place((0, 0, 0.15 + 0.5 * k), (0.95, 0.6, 0.04), frame))
        if rng.random() < 0.8:
            color = tinted(rng, pick(rng, COLORS["furniture"]), 0.3)
            size = (rng.uniform(0.4, 0.85), 0.5, rng.uniform(0.12, 0.32))
            boxes.append(place((0, 0, 0.19 + 0.5 * k), size, color, (2, 1, 1)))
    return boxes


def forklift(rng: Rng, place: Place) -> list[Cuboid]:
    """A parked truck with mast and forks."""
    return shaped(place, "forklift", paint=tinted(rng, pick(rng, COLORS["trucks"])), black=BLACK, steel=STEEL)


def cabinet(rng: Rng, place: Place) -> list[Cuboid]:
    """A row of lockers or machines."""
    color = tinted(rng, pick(rng, COLORS["furniture"]), 0.25)
    size = rng.uniform((0.8, 0.5, 1.2), (1.3, 0.9, 2.1)).tolist()
    body = place((0, 0, 0), size, color, (rng.integers(1, 4), 1, 2))
    return [body, place((0, 0, size[2]), (0.9 * size[0], 0.4, 0.12), tinted(rng, color, 0.2))]


def on_wall(rng: Rng, place: Place, height: float) -> list[Cuboid]:
    """A gate, a window, a column or a pipe on a wall of a room of that height."""
    kind, grey = rng.integers(4), tinted(rng, CLADDING, 0.3)
    if kind == 0:
        wide, high = rng.uniform((2.4, 2.6), (3.6, 3.6))
        return [place((0, 0, 0), (wide, 0.12, high), grey, (1, 1, 9))]
    if kind == 1:
        wide, high, base = rng.uniform((1.0, 0.8, 2.6), (2.4, 1.4, 4.0)).tolist()
        return [place((0, 0, base), (wide, 0.06, high), PANE, (3, 1, 2))]
    if kind == 2:
        return [place((0, 0, 0), (0.3, 0.5, height - 0.1), grey), *rings(place, 4, 0.3, 0.36, 0.6, 0.02)]
    return [place((0, 0, rng.uniform(2.2, 4.5)), (3.0, 0.3, 0.12), grey)]


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
