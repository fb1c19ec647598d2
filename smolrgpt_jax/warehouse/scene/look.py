"""How a scene looks beyond its geometry: lamps, shadows, floors, walls, paint, prints on boxes. Nothing here moves a thing."""

import dataclasses
import math
from collections.abc import Sequence

from smolrgpt_jax.warehouse.scene.geometry import Camera, Point, Vector
from smolrgpt_jax.warehouse.scene.objects import COLORS, Color, Cuboid, Rng, pick, tinted

WALLS = ("ribs", "panels", "blocks", "plaster")
PLAIN_STRIPE = (0.10, 0.27, 0.62)


@dataclasses.dataclass(frozen=True)
class Lamp:
    position: Vector  # metres
    strength: float  # brightness below it, relative to the even light
    reach: float  # metres to the side at which a quarter of it is left


@dataclasses.dataclass(frozen=True)
class Look:
    """What surfaces look like; lengths in metres, tones and strengths relative to the plain colour."""

    lamps: tuple[Lamp, ...] = ()  # pools of light on top of the even light
    even: float = 1.0  # tone of the even light
    shadow: float = 0.28  # strength of the shadow under what stands
    soft: float = 0.35  # how far it reaches out
    lean: float = 0.3  # how far it is moved away from the light
    slab: float = 4.0  # distance of the floor's joints
    joint: float = 0.8  # their tone
    grain: float = 0.0  # contrast of the floor's fine texture
    marks: tuple[Vector, ...] = ()  # tyre tracks: x, heading, width
    line: float = 0.05  # half the width of painted lines
    hazard: bool = False  # black bars on the line round the aisle
    fill: float = 0.0  # share of the paint's colour on the floor within a zone
    plates: bool = False  # dark plates in front of the zones
    wall: str = "ribs"  # one of WALLS
    base: Point = (1.5, 0.62)  # height and tone of a wall's lower part
    stripe: Point = (1.7, 0.22)  # middle and half the width of its coloured stripe
    prints: float = 0.0  # share of the cardboard's faces with tape and labels
    vignette: float = 0.0  # how much darker the picture's corners are
    gamma: float = 1.0  # of the whole picture


@dataclasses.dataclass(frozen=True)
class Colors:
    floor: Color
    wall: Color
    stripe: Color
    paint: Color


def plain_colors(rng: Rng, floor: float, wall: float) -> Colors:
    """Grey floor and walls of some brightness."""
    return Colors(
        floor=tinted(rng, (floor,) * 3, 0.03),
        wall=tinted(rng, (wall,) * 3, 0.03),
        stripe=tinted(rng, PLAIN_STRIPE, 0.15),
        paint=tinted(rng, pick(rng, COLORS["plain zone paints"]), 0.05),
    )


def draw_look(rng: Rng, room: Vector, variety: float) -> Look:
    """Draws a look; `variety` in 0..1 scales how far it is from the plain one."""

    def about(plain: float, low: float, high: float) -> float:
        return float(plain + variety * (rng.uniform(low, high) - plain))

    def happens(share: float) -> bool:
        return bool(rng.random() < share * variety)

    return Look(
        lamps=tuple(_lamps(rng, room, variety)),
        even=about(1.0, 0.55, 0.9),
        shadow=about(0.28, 0.15, 0.62),
        soft=about(0.35, 0.2, 0.8),
        lean=about(0.3, 0.0, 0.7),
        slab=about(4.0, 1.5, 7.0) if not happens(0.15) else 0.6,
        joint=about(0.8, 0.72, 0.95),
        grain=about(0.0, 0.03, 0.11),
        marks=tuple(
            (rng.uniform(-0.4, 0.4) * room[0], rng.normal(0, 0.5), rng.uniform(0.9, 1.4))
            for _ in range(int(rng.integers(0, 4)) if happens(0.7) else 0)
        ),
        line=about(0.05, 0.035, 0.085),
        hazard=happens(0.35),
        fill=about(0.0, 0.15, 0.55) if happens(0.25) else 0.0,
        plates=happens(0.3),
        wall=pick(rng, WALLS) if happens(1.0) else "ribs",
        base=(about(1.5, 0.0, 2.4), about(0.62, 0.45, 0.95)),
        stripe=(about(1.7, 1.3, 3.2), about(0.22, 0.0, 0.35)),
        prints=about(0.0, 0.3, 1.0),
        vignette=about(0.0, 0.0, 0.3),
        gamma=about(1.0, 0.8, 1.12),
    )


def draw_colors(rng: Rng, plain: Colors, variety: float) -> Colors:
    """Draws colours of floor, walls and paint, each kept plain with probability 1 - `variety`."""

    def other(color: Color, choices: Sequence[Color], spread: float) -> Color:
        choice = tinted(rng, pick(rng, choices), spread)
        return choice if rng.random() < variety else color

    light = rng.uniform(0.45, 0.92)
    return Colors(
        floor=other(plain.floor, COLORS["floors"], 0.12),
        wall=other(plain.wall, ((light, light, light), (light, 0.97 * light, 0.9 * light)), 0.03),
        stripe=other(plain.stripe, COLORS["wall stripes"], 0.15),
        paint=other(plain.paint, COLORS["zone paints"], 0.08),
    )


def dress(rng: Rng, cuboids: Sequence[Cuboid], variety: float) -> list[Cuboid]:
    """Other colours for loads and pallets; one draw per object, so a load stays of one kind.

    Boxes that belong to no object keep theirs.
    """
    dressed, last, load, pallet = [], 0, None, None
    for cuboid in cuboids:
        if cuboid.owner != last:
            last = cuboid.owner
            load = pick(rng, COLORS["loads"]) if rng.random() < 0.3 * variety else None
            pallet = pick(rng, COLORS["painted pallets"]) if rng.random() < 0.5 * variety else None
        if cuboid.owner and cuboid.material == "card":
            color = tinted(rng, load or cuboid.color, 0.14 * variety)
            cuboid = dataclasses.replace(cuboid, color=color, material="plain" if load else "card")
        elif cuboid.owner and cuboid.material == "wood" and pallet is not None:
            cuboid = dataclasses.replace(cuboid, color=tinted(rng, pallet))
        dressed.append(cuboid)
    return dressed


def vary_camera(rng: Rng, camera: Camera, room: Vector, variety: float) -> Camera:
    """Another height, focal length and pitch; the point that is looked at stays within the room."""
    x, y, z = camera.position
    higher, longer, farther = rng.uniform(-0.6, 0.6), rng.uniform(-0.06, 0.12), rng.uniform(-0.25, 0.3)
    reach = z / math.tan(camera.pitch) * (1 + variety * farther)
    z += variety * higher
    most = (0.62 * room[1] - y) / max(math.cos(camera.yaw), 0.5)
    pitch = math.atan2(z, min(max(reach, 4.0), max(most, 4.0)))
    return Camera((x, y, z), camera.yaw, pitch, camera.focal + variety * longer * 0.69)


def _lamps(rng: Rng, room: Vector, variety: float) -> list[Lamp]:
    width, depth, height = room
    rows, columns = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    strength, reach = rng.uniform(0.5, 1.1) * variety, rng.uniform(2.5, 5.0)
    lamps = []
    for row in range(rows):
        for column in range(columns):
            x = ((column + 0.5) / columns - 0.5 + rng.normal(0, 0.04)) * width
            y = ((row + 0.5) / rows + rng.normal(0, 0.04)) * depth
            lamps.append(Lamp((x, y, height - 0.5), strength * rng.uniform(0.75, 1.25), reach))
    return [lamp for lamp in lamps if rng.random() < 0.85] or lamps[:1]
