"""Questions of SpatialRGPT-Bench's categories about one scene, with exact metric answers.

Lengths are those of the box round an object whose sides are parallel to the camera's heading, as the benchmark measures them on point
clouds turned upright: width to the right, height upwards. Pairs that nearly agree in what is asked are not asked about.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco

from smolrgpt_jax.warehouse.picture.view import Region
from smolrgpt_jax.warehouse.scene.layout import Scene
from smolrgpt_jax.warehouse.scene.objects import Rng, pick
from smolrgpt_jax.warehouse.words.wordings import SPATIAL

QUALITATIVE = tuple(category for category in SPATIAL if category.endswith(("_predicate", "_choice")))
QUANTITATIVE = tuple(category for category in SPATIAL if category not in QUALITATIVE)
UNITS = {"meters": 1.0, "centimeters": 0.01, "feet": 0.3048, "inches": 0.0254}  # in metres
OPPOSITES = {"right": "left", "below": "above", "small": "big", "short": "tall", "thin": "wide", "front": "behind"}
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
    """A visible object and the box round it."""

    region: Region  # what is seen of it
    low: tuple[float, float, float]  # corner of the box, metres (right, ahead, up) of the floor below the camera
    high: tuple[float, float, float]
    whole: bool  # whether all of it is in view and hardly anything hides it

    @property
    def center(self) -> tuple[float, ...]:
        """Of the box, metres (right, ahead, up)."""
        return tuple((a + b) / 2 for a, b in zip(self.low, self.high))

    @property
    def size(self) -> tuple[float, ...]:
        """Width, length and height in metres."""
        return tuple(b - a for a, b in zip(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class SpatialQuestion:
    category: str  # of the benchmark, such as "left_predicate" or "width_data"
    prompt: str  # with {a} and {b} for the regions
    answer: str  # with {a} and {b} too
    regions: tuple[Region, ...]  # a, or a and b
    value: bool | int | float  # the exact answer: bool (predicate), 0 or 1 for a or b (choice), metres, or the hour

    @property
    def type(self) -> str:
        """ "qualitative" or "quantitative"."""
        return "qualitative" if self.category in QUALITATIVE else "quantitative"

    def texts(self, names: Sequence[str], first: int = 0) -> tuple[str, str]:
        """Question and answer; `names` stand for the regions in the question, "Region [first + i]" in the answer."""
        numbered = [f"Region [{first + i}]" for i in range(len(self.regions))]
        return self.prompt.format(**dict(zip("ab", names))), self.answer.format(**dict(zip("ab", numbered)))


def solids(scene: Scene, regions: Sequence[Region], width: int, height: int) -> list[Solid]:
    """The objects among what is seen, in a picture of so many pixels, that stand up and are seen well enough to be placed."""
    found = []
    for region in regions:
        if region.kind != "buffer":
            boxes = [cuboid.corners() for cuboid in scene.cuboids if cuboid.owner == region.thing.number]
            points = np.concatenate(boxes)
            share = _share_seen(scene, region, points, width, height)
            if share >= SEEN_PART:
                ahead, right = scene.camera.on_floor(points.T)
                placed = np.stack([right, ahead, points[:, 2]])
                low, high = (tuple(corner.tolist()) for corner in (placed.min(1), placed.max(1)))
                found.append(Solid(region, low, high, share >= SEEN_WHOLE))
    return found


def _share_seen(scene: Scene, region: Region, points: np.ndarray, width: int, height: int) -> float:
    """Share of the object's box in the picture that its mask spans, the smaller of across and down."""
    seen = scene.camera.project(points)
    if seen[:, 2].min() <= 0:
        return 0.0
    pixels = seen[:, :2] * width + (width / 2, height / 2)
    _, _, *box = coco.toBbox({"size": [height, width], "counts": region.counts.encode()})
    return float((np.array(box) / (pixels.max(0) - pixels.min(0))).min())


def benchmark_questions(found: Sequence[Solid], rng: Rng) -> list[SpatialQuestion]:
    """About one scene, as many qualitative as quantitative ones: one and three of each category."""
    numbers = dict.fromkeys(QUALITATIVE, 1) | dict.fromkeys(QUANTITATIVE, 3)
    return [question for category, number in numbers.items() for question in ask(found, rng, category, number)]


def conversation(found: Sequence[Solid], rng: Rng) -> list[SpatialQuestion]:
    """The turns of a conversation about one scene, each of another category."""
    chosen = rng.permutation((*QUALITATIVE, *QUANTITATIVE))[: 2 * TURNS].tolist()
    return [question for category in chosen for question in ask(found, rng, category, 1)][:TURNS]


def ask(found: Sequence[Solid], rng: Rng, category: str, most: int) -> list[SpatialQuestion]:
    """Up to `most` questions of one category about different objects, fewer where pairs are ambiguous."""
    asked: dict[frozenset[int], SpatialQuestion] = {}
    whole = category in ("width_data", "height_data")
    groups = [(a,) for a in found] if whole else [(a, b) for a in found for b in found]
    for i in rng.permutation(len(groups)):
        if len(asked) == most:
            break
        objects = frozenset(solid.region.index for solid in groups[i])
        if len(objects) == len(groups[i]) and objects not in asked:
            question = _question(category, groups[i], rng)
            if question is not None:
                asked[objects] = question
    return list(asked.values())


def _question(category: str, group: Sequence[Solid], rng: Rng) -> SpatialQuestion | None:
    words, form = SPATIAL[category], category.rsplit("_", 1)[-1] if category in QUALITATIVE else ""
    value = compared(category.removesuffix(f"_{form}"), *group) if form else measured(category, group)
    if value is None:
        return None
    if form == "predicate":
        answer, prompt = pick(rng, words["yes" if value else "no"]), pick(rng, words["questions"])
    elif form == "choice":
        answer, prompt = pick(rng, words["answers"]), pick(rng, words["questions"])
        answer, value = answer.replace("{x}", "{a}" if value else "{b}"), 0 if value else 1
    else:
        text = str(value)
        if category != "direction":
            unit = pick(rng, tuple(UNITS))
            text = f"{value / UNITS[unit]:.2f} {unit}"
        prompt, answer = pick(rng, words["questions"]), pick(rng, words["answers"]).replace("{x}", text)
    return SpatialQuestion(category, prompt, answer, tuple(solid.region for solid in group), value)


def compared(name: str, a: Solid, b: Solid) -> bool | None:
    """Whether a predicate holds of `a` and `b`; None where they nearly agree or are not seen whole."""
    if name in OPPOSITES:
        holds = compared(OPPOSITES[name], a, b)
        return None if holds is None else not holds
    if name in ("big", "tall", "wide"):
        sizes = [{"big": math.prod(s.size), "tall": s.size[2], "wide": s.size[0]}[name] for s in (a, b)]
        clear = max(sizes) >= (VOLUME_RATIO if name == "big" else SIZE_RATIO) * min(sizes)
        return sizes[0] > sizes[1] if a.whole and b.whole and clear else None
    (a_right, a_ahead, a_up), (b_right, b_ahead, b_up) = a.center, b.center
    # What is farther left or higher must also look so: perspective can turn either round.
    # What is behind is so by the nearest points, as in the release, and by the middles.
    measures = {
        "left": ((b_right - a_right, ASIDE), (b.region.u - a.region.u, PICTURE_MARGIN)),
        "above": ((a_up - b_up, ABOVE), (b.region.v - a.region.v, PICTURE_MARGIN)),
        "behind": ((a.low[1] - b.low[1], AHEAD), (a_ahead - b_ahead, AHEAD)),
    }[name]
    if all(value >= margin for value, margin in measures):
        return True
    return False if all(value <= -margin for value, margin in measures) else None


def measured(category: str, group: Sequence[Solid]) -> float | int | None:
    """The length in metres or the hour that a category asks for; None where it should not be asked."""
    if category in ("width_data", "height_data"):
        (solid,) = group
        return solid.size[0 if category == "width_data" else 2] if solid.whole else None
    a, b = group
    right, ahead, up = (y - x for x, y in zip(a.center, b.center))
    if category == "direction":
        hour, margin = clock_hour(right, ahead)
        return hour if margin >= SECTOR_MARGIN and math.hypot(right, ahead) >= NEAREST else None
    metres = {
        "distance_data": math.hypot(right, ahead, up),
        "horizontal_distance_data": math.hypot(right, ahead),
        "vertical_distance_data": abs(up),
    }[category]
    return metres if metres >= SHORTEST else None


def clock_hour(right: float, ahead: float) -> tuple[int, float]:
    """The hour at which somebody who looks the camera's way finds what is so many metres to the right and ahead.

    As the benchmark's release counts, hour h is the sector that ends h * 30 degrees clockwise of straight ahead, so 1 o'clock is
    from 0 to 30 degrees and 12 o'clock from 330 to 360. Also returns the degrees to the nearest border of the sector.
    """
    degrees = math.degrees(math.atan2(right, ahead)) % 360
    return math.ceil(degrees / 30) or 12, min(degrees % 30, 30 - degrees % 30)
