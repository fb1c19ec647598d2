"""Questions of SpatialRGPT-Bench's categories about one scene, with exact metric answers.

Lengths are those of the box round an object whose sides are parallel to the camera's heading, as
the benchmark measures them on point clouds turned upright: width to the right, height upwards.
Pairs that nearly agree in what is asked are not asked about.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.words import spatial_phrases as phrases

QUALITATIVE = tuple(
    [f"{name}_predicate" for name in phrases.PREDICATES] + [f"{name}_choice" for name in phrases.CHOICES]
)
QUANTITATIVE = (*phrases.LENGTHS, "direction")
SEEN_WHOLE = 0.9  # share of an object's box in the picture, across and down, that its mask must span to be measured
SEEN_PART = 0.6  # the same, for an object to be placed
SIZE_RATIO = 1.2  # between two heights or widths that are compared
VOLUME_RATIO = 1.5
ASIDE, ABOVE, AHEAD = 0.3, 0.2, 0.5  # metres between two places that are compared
PICTURE_MARGIN = 0.02  # of the picture's width or height, between two centroids
SHORTEST = 0.2  # metres, of a distance that is asked for
SECTOR_MARGIN = 5.0  # degrees from the nearest border between two hours
TURNS = 5  # of a conversation, at most
NEAREST = 0.5  # metres on the floor, of a direction that is asked for


@dataclasses.dataclass(frozen=True)
class Solid:
    """A visible object and the box round it.

    Attributes:
      region: what is seen of it.
      low, high: corners of the box, metres (right, ahead, up) of the point on the floor below the camera.
      whole: whether all of it is in view and hardly anything hides it.
    """

    region: Region
    low: tuple[float, float, float]
    high: tuple[float, float, float]
    whole: bool

    @property
    def center(self) -> tuple[float, ...]:
        """Of the box, metres (right, ahead, up)."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high))

    @property
    def size(self) -> tuple[float, ...]:
        """Width, length and height in metres."""
        return tuple(b - a for a, b in zip(self.low, self.high))

    @property
    def volume(self) -> float:
        """Of the box, cubic metres."""
        return math.prod(self.size)


@dataclasses.dataclass(frozen=True)
class SpatialQuestion:
    """A question about one or two regions.

    Attributes:
      category: of the benchmark, such as "left_predicate" or "width_data".
      prompt: with {a} and {b} for the regions.
      answer: with {a} and {b} too.
      regions: a, or a and b.
      value: the exact answer: bool (predicate), 0 or 1 for a or b (choice), metres, or the hour.
    """

    category: str
    prompt: str
    answer: str
    regions: tuple[Region, ...]
    value: bool | int | float

    @property
    def type(self) -> str:
        """ "qualitative" or "quantitative"."""
        return "qualitative" if self.category in QUALITATIVE else "quantitative"

    def texts(self, names: Sequence[str], first: int = 0) -> tuple[str, str]:
        """Question and answer; ``names`` stand for the regions in the question, "Region [first + i]" in the answer."""
        numbered = [f"Region [{first + i}]" for i in range(len(self.regions))]
        return self.prompt.format(**dict(zip("ab", names))), self.answer.format(**dict(zip("ab", numbered)))


def solids(scene: Scene, regions: Sequence[Region], width: int, height: int) -> list[Solid]:
    """The objects among what is seen that stand up and are seen well enough to be placed.

    Args:
      scene: of the regions.
      regions: what is seen.
      width, height: of the picture the masks are for, pixels.
    """
    found = []
    cos, sin = math.cos(scene.camera.yaw), math.sin(scene.camera.yaw)
    heading = np.array([[cos, -sin], [sin, cos]])  # right and ahead, one per row
    for region in regions:
        if region.kind == "buffer":
            continue
        points = np.concatenate([cuboid.corners() for cuboid in scene.cuboids if cuboid.owner == region.thing.number])
        floor = (points[:, :2] - scene.camera.position[:2]) @ heading.T
        placed = np.column_stack([floor, points[:, 2]])
        share = _share_seen(scene, region, points, width, height)
        if share >= SEEN_PART:
            low, high = placed.min(0).tolist(), placed.max(0).tolist()
            found.append(Solid(region, tuple(low), tuple(high), share >= SEEN_WHOLE))
    return found


def benchmark_questions(found: Sequence[Solid], rng: np.random.Generator) -> list[SpatialQuestion]:
    """About one scene, as many qualitative as quantitative ones: one and three of each category."""
    asker = SpatialAsker(found, rng)
    return [
        question
        for category in (*QUALITATIVE, *QUANTITATIVE)
        for question in asker.ask(category, 1 if category in QUALITATIVE else 3)
    ]


def conversation(found: Sequence[Solid], rng: np.random.Generator) -> list[SpatialQuestion]:
    """The turns of a conversation about one scene, each of another category."""
    asker, categories = SpatialAsker(found, rng), (*QUALITATIVE, *QUANTITATIVE)
    turns = [question for i in rng.permutation(len(categories))[: 2 * TURNS] for question in asker.ask(categories[i])]
    return turns[:TURNS]


def _share_seen(scene: Scene, region: Region, points: np.ndarray, width: int, height: int) -> float:
    """Share of the object's box in the picture that its mask spans, the smaller of across and down."""
    seen = scene.camera.project(points)
    if seen[:, 2].min() <= 0:
        return 0.0
    pixels = seen[:, :2] * width + (width / 2, height / 2)
    whole = pixels.max(0) - pixels.min(0)
    _, _, *box = coco.toBbox({"size": [height, width], "counts": region.counts.encode()})
    return float((np.array(box) / whole).min())


def clock_hour(a: Solid, b: Solid) -> tuple[int, float]:
    """The hour at which somebody at ``a`` who looks the camera's way finds ``b``.

    As the benchmark's release counts, hour h is the sector that ends h * 30 degrees clockwise of
    straight ahead, so 1 o'clock is from 0 to 30 degrees and 12 o'clock from 330 to 360.

    Returns:
      The hour, 1 to 12, and the degrees to the nearest border of its sector.
    """
    right, ahead = b.center[0] - a.center[0], b.center[1] - a.center[1]
    degrees = math.degrees(math.atan2(right, ahead)) % 360
    return math.ceil(degrees / 30) or 12, min(degrees % 30, 30 - degrees % 30)


class SpatialAsker:
    """Draws questions about one scene; all choices come from the generator.

    Args:
      found: the objects that can be asked about.
      rng: generator.
    """

    def __init__(self, found: Sequence[Solid], rng: np.random.Generator):
        self.found, self.rng = found, rng

    def ask(self, category: str, most: int = 1) -> list[SpatialQuestion]:
        """Up to ``most`` questions of one category about different objects, fewer where pairs are ambiguous."""
        asked: list[SpatialQuestion] = []
        known: set[frozenset[int]] = set()
        whole = category in ("width_data", "height_data")
        groups = [(a,) for a in self.found] if whole else [(a, b) for a in self.found for b in self.found]
        for i in self.rng.permutation(len(groups)):
            group = groups[i]
            if len(asked) == most:
                break
            objects = frozenset(solid.region.index for solid in group)
            if len(objects) < len(group) or objects in known:
                continue
            question = self._question(category, group)
            if question is not None:
                asked.append(question)
                known.add(objects)
        return asked

    def _pick(self, options: Sequence[str]) -> str:
        return options[self.rng.integers(len(options))]

    def _question(self, category: str, group: Sequence[Solid]) -> SpatialQuestion | None:
        regions = tuple(solid.region for solid in group)
        if category in QUALITATIVE:
            name, form = category.rsplit("_", 1)
            holds = compared(name, *group)
            if holds is None:
                return None
            if form == "choice":
                questions, answers = phrases.CHOICES[name]
                value: bool | int = 0 if holds else 1
                answer = self._pick(answers).replace("{x}", "{a}" if holds else "{b}")
            else:
                questions, agree, disagree = phrases.PREDICATES[name]
                value, answer = holds, self._pick(agree if holds else disagree)
            return SpatialQuestion(category, self._pick(questions), answer, regions, value)
        value = measured(category, group)
        if value is None:
            return None
        questions, answers = phrases.DIRECTION if category == "direction" else phrases.LENGTHS[category]
        text = str(value) if category == "direction" else self._length(value)
        return SpatialQuestion(
            category, self._pick(questions), self._pick(answers).replace("{x}", text), regions, value
        )

    def _length(self, metres: float) -> str:
        unit = self._pick(tuple(phrases.UNITS))
        return f"{metres / phrases.UNITS[unit]:.2f} {unit}"


def compared(name: str, a: Solid, b: Solid) -> bool | None:
    """Whether a predicate holds of ``a`` and ``b``; None where they nearly agree or are not seen whole."""
    opposite = {"right": "left", "below": "above", "small": "big", "short": "tall", "thin": "wide", "front": "behind"}
    if name in opposite:
        holds = compared(opposite[name], a, b)
        return None if holds is None else not holds
    if name in ("big", "tall", "wide"):
        if not (a.whole and b.whole):
            return None
        sizes = [{"big": s.volume, "tall": s.size[2], "wide": s.size[0]}[name] for s in (a, b)]
        ratio = VOLUME_RATIO if name == "big" else SIZE_RATIO
        return None if max(sizes) < ratio * min(sizes) else sizes[0] > sizes[1]
    # What is farther left or higher must also look so: perspective can turn either round.
    if name == "left":
        return _agreed((b.center[0] - a.center[0], ASIDE), (b.region.u - a.region.u, PICTURE_MARGIN))
    if name == "above":
        return _agreed((a.center[2] - b.center[2], ABOVE), (b.region.v - a.region.v, PICTURE_MARGIN))
    # By the nearest points, as in the release, and by the middles.
    return _agreed((a.low[1] - b.low[1], AHEAD), (a.center[1] - b.center[1], AHEAD))


def _agreed(*measures: tuple[float, float]) -> bool | None:
    """True if every value is beyond its margin, False if every one is below minus it, else None."""
    if all(value >= margin for value, margin in measures):
        return True
    return False if all(value <= -margin for value, margin in measures) else None


def measured(category: str, group: Sequence[Solid]) -> float | int | None:
    """The length in metres or the hour that a category asks for; None where it should not be asked."""
    if category in ("width_data", "height_data"):
        (solid,) = group
        return solid.size[0 if category == "width_data" else 2] if solid.whole else None
    a, b = group
    offset = [y - x for x, y in zip(a.center, b.center)]
    if category == "direction":
        hour, margin = clock_hour(a, b)
        return hour if margin >= SECTOR_MARGIN and math.hypot(*offset[:2]) >= NEAREST else None
    metres = {
        "distance_data": math.hypot(*offset),
        "horizontal_distance_data": math.hypot(*offset[:2]),
        "vertical_distance_data": abs(offset[2]),
    }[category]
    return metres if metres >= SHORTEST else None
