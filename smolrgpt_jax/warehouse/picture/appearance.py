"""How a scene looks beyond its geometry: lamps, shadows, floors, walls, paint, prints on boxes.

Nothing here decides where a thing stands. The defaults of ``Look`` are the plain look of
``appearance_variety`` 0; ``draw_look`` varies them with a generator of its own.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from smolrgpt_jax.warehouse.scene.geometry import Camera
from smolrgpt_jax.warehouse.scene.objects import Color, Cuboid, tinted

WALLS = ("ribs", "panels", "blocks", "plaster")
# Paints of zones, floors and walls seen in warehouses, RGB in 0..1.
ZONE_PAINTS: tuple[Color, ...] = (
    (0.92, 0.74, 0.12),
    (0.15, 0.34, 0.66),
    (0.85, 0.85, 0.82),
    (0.72, 0.16, 0.13),
    (0.16, 0.50, 0.28),
    (0.88, 0.45, 0.12),
)
FLOORS: tuple[Color, ...] = (
    (0.42, 0.42, 0.43),
    (0.52, 0.51, 0.49),
    (0.36, 0.40, 0.42),
    (0.34, 0.44, 0.38),
    (0.50, 0.45, 0.38),
    (0.30, 0.36, 0.47),
)
STRIPES: tuple[Color, ...] = (
    (0.10, 0.27, 0.62),
    (0.72, 0.16, 0.13),
    (0.85, 0.62, 0.10),
    (0.20, 0.42, 0.28),
    (0.30, 0.30, 0.32),
)
# Loads other than cardboard: white cartons, dark wrap, blue crates, wooden crates, clear foil.
LOADS: tuple[Color, ...] = (
    (0.80, 0.79, 0.76),
    (0.20, 0.17, 0.17),
    (0.20, 0.36, 0.66),
    (0.70, 0.52, 0.30),
    (0.66, 0.69, 0.70),
)
PALLETS: tuple[Color, ...] = ((0.62, 0.47, 0.28), (0.55, 0.14, 0.12), (0.18, 0.40, 0.26), (0.46, 0.47, 0.48))


@dataclasses.dataclass(frozen=True)
class Lamp:
    """A lamp under the ceiling.

    Attributes:
      position: metres.
      strength: brightness below it, relative to the even light.
      reach: metres to the side at which a quarter of it is left.
    """

    position: tuple[float, float, float]
    strength: float
    reach: float


@dataclasses.dataclass(frozen=True)
class Look:
    """What surfaces look like; lengths in metres, tones and strengths relative to the plain colour.

    Attributes:
      lamps: pools of light on top of the even light, which is then ``even`` of its strength.
      even: tone of the even light.
      shadow: strength of the shadow under what stands; soft: how far it reaches out; lean: how far
        it is moved away from the light.
      slab: distance of the floor's joints; joint: their tone.
      grain: contrast of the floor's fine texture; marks: tyre tracks as (x, heading, width).
      line: half the width of painted lines; hazard: black bars on the line round the aisle.
      fill: share of the paint's colour on the floor within a zone; plates: dark plates in front of the zones.
      wall: one of WALLS; base: height and tone of a wall's lower part; stripe: middle and half
        the width of its coloured stripe.
      prints: share of the cardboard's faces with tape and labels.
      vignette: how much darker the picture's corners are; gamma: of the whole picture.
    """

    lamps: tuple[Lamp, ...] = ()
    even: float = 1.0
    shadow: float = 0.28
    soft: float = 0.35
    lean: float = 0.3
    slab: float = 4.0
    joint: float = 0.8
    grain: float = 0.0
    marks: tuple[tuple[float, float, float], ...] = ()
    line: float = 0.05
    hazard: bool = False
    fill: float = 0.0
    plates: bool = False
    wall: str = "ribs"
    base: tuple[float, float] = (1.5, 0.62)
    stripe: tuple[float, float] = (1.7, 0.22)
    prints: float = 0.0
    vignette: float = 0.0
    gamma: float = 1.0


@dataclasses.dataclass(frozen=True)
class Colors:
    """Colours of a scene, RGB in 0..1."""

    floor: Color
    wall: Color
    stripe: Color
    paint: Color


def draw_look(rng: np.random.Generator, room: tuple[float, float, float], variety: float) -> Look:
    """Draws a look; ``variety`` in 0..1 scales how far it is from the plain one."""

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
            (float(rng.uniform(-0.4, 0.4) * room[0]), float(rng.normal(0, 0.5)), float(rng.uniform(0.9, 1.4)))
            for _ in range(int(rng.integers(0, 4)) if happens(0.7) else 0)
        ),
        line=about(0.05, 0.035, 0.085),
        hazard=happens(0.35),
        fill=about(0.0, 0.15, 0.55) if happens(0.25) else 0.0,
        plates=happens(0.3),
        wall=WALLS[rng.integers(len(WALLS))] if happens(1.0) else "ribs",
        base=(about(1.5, 0.0, 2.4), about(0.62, 0.45, 0.95)),
        stripe=(about(1.7, 1.3, 3.2), about(0.22, 0.0, 0.35)),
        prints=about(0.0, 0.3, 1.0),
        vignette=about(0.0, 0.0, 0.3),
        gamma=about(1.0, 0.8, 1.12),
    )


def draw_colors(rng: np.random.Generator, plain: Colors, variety: float) -> Colors:
    """Draws colours of floor, walls and paint, each kept plain with probability 1 - ``variety``."""

    def other(color: Color, palette: Sequence[Color], spread: float) -> Color:
        choice = tinted(rng, palette[rng.integers(len(palette))], spread)
        return choice if rng.random() < variety else color

    light = rng.uniform(0.45, 0.92)
    return Colors(
        floor=other(plain.floor, FLOORS, 0.12),
        wall=other(plain.wall, ((light, light, light), (light, 0.97 * light, 0.9 * light)), 0.03),
        stripe=other(plain.stripe, STRIPES, 0.15),
        paint=other(plain.paint, ZONE_PAINTS, 0.08),
    )


def dress(rng: np.random.Generator, cuboids: Sequence[Cuboid], variety: float) -> list[Cuboid]:
    """Other colours for loads and pallets; one draw per object, so a load stays of one kind.

    Boxes that belong to no object keep theirs.
    """
    dressed, last, load, pallet = [], 0, None, None
    for cuboid in cuboids:
        if cuboid.owner != last:
            last = cuboid.owner
            load = LOADS[rng.integers(len(LOADS))] if rng.random() < 0.3 * variety else None
            pallet = PALLETS[rng.integers(len(PALLETS))] if rng.random() < 0.5 * variety else None
        if cuboid.owner and cuboid.material == "card":
            spread = 0.14 * variety
            color = tinted(rng, load or cuboid.color, spread)
            cuboid = dataclasses.replace(cuboid, color=color, material="plain" if load else "card")
        elif cuboid.owner and cuboid.material == "wood" and pallet is not None:
            cuboid = dataclasses.replace(cuboid, color=tinted(rng, pallet))
        dressed.append(cuboid)
    return dressed


def vary_camera(rng: np.random.Generator, camera: Camera, room: tuple[float, float, float], variety: float) -> Camera:
    """Another height, focal length and pitch; the point that is looked at stays within the room."""
    x, y, z = camera.position
    higher, longer, farther = rng.uniform(-0.6, 0.6), rng.uniform(-0.06, 0.12), rng.uniform(-0.25, 0.3)
    reach = z / math.tan(camera.pitch) * (1 + variety * farther)
    z += variety * higher
    most = (0.62 * room[1] - y) / max(math.cos(camera.yaw), 0.5)
    pitch = math.atan2(z, min(max(reach, 4.0), max(most, 4.0)))
    return Camera((x, y, z), camera.yaw, pitch, camera.focal + variety * longer * 0.69)


def _lamps(rng: np.random.Generator, room: tuple[float, float, float], variety: float) -> list[Lamp]:
    """Lamps in rows, of which some are out."""
    width, depth, height = room
    rows, columns = int(rng.integers(2, 4)), int(rng.integers(1, 4))
    strength, reach = rng.uniform(0.5, 1.1) * variety, rng.uniform(2.5, 5.0)
    lamps = [
        Lamp(
            (
                ((column + 0.5) / columns - 0.5 + rng.normal(0, 0.04)) * width,
                ((row + 0.5) / rows + rng.normal(0, 0.04)) * depth,
                height - 0.5,
            ),
            strength * rng.uniform(0.75, 1.25),
            reach,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    working = [lamp for lamp in lamps if rng.random() < 0.85]
    return working or lamps[:1]
