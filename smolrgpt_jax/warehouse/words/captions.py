"""Captions that teach a model from scratch to see: what is there, where, and which region is which.

Places in the picture are percent of its width and height, 0 to 99. Places on the floor are metres
from the point below the camera: ahead along its heading, and to the left or right of that line.
Both are those of the questions, so what captions teach adds up with what questions ask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.scene.objects import KINDS
from smolrgpt_jax.warehouse.words import phrases, worked
from smolrgpt_jax.warehouse.words.questions import (
    NOUNS,
    NUMBER_WORDS,
    SIDE_MARGIN,
    AnswerStyle,
    Asker,
    masks,
    named,
    nearest,
)

METRES_MARGIN = 0.4  # between two objects that are compared by their distance ahead
PLACE_MARGIN = 0.06  # of the picture, between the place asked for and the next region


@dataclasses.dataclass(frozen=True)
class CaptionCounts:
    """How many region captions of each kind a picture gets, where its scene allows.

    Attributes:
      single: kind and coarse place of one region: few tokens, nearly all of which can be learned early.
      compare: which of two is farther left, and which nearer.
      side: the side of one of two pallets or buffers, asked as the warehouse questions ask and answered in one word.
      floor: place of one region on the floor in whole metres.
      apart: the distance of two regions in whole metres; half of them pallets, asked as the warehouse questions ask.
      within: whether a pallet is inside a buffer; both answers equally often where a scene has both.
      how_many: the number of pallets inside a buffer, asked as the warehouse questions ask and answered in one word.
      closest: the number of the region that is closest to another one.
      fine: place of one region.
      metric: its place on the floor.
      several: kinds and places of numbered regions.
      which: the number of the region at a place.
      order: numbers from left to right.
      extreme: the number of the leftmost, rightmost, nearest or farthest region.
      pair: offset and distance between two regions.
      inside: the numbers of the pallets inside a buffer.
      empty: the number of the empty transporter.
      name_each, place_each, inside_each, near_each: what each of several regions is, where it is across the picture, whether it
        is inside a buffer, how far from a region it is; all in the order of their numbers, as in worked answers, see worked.py.
      reckon_each: where each of several regions stands in whole metres, and how far from the first, step by step.
      legs: how far two regions are apart across and along in tenths of metres, and then their distance.
      load: whether a transporter carries something.
      worked_count, worked_mcq, worked_distance: asked as the warehouse questions of that category ask; the opening of the worked
        answer, and then the value alone.
    """

    single: int = 12
    compare: int = 8
    side: int = 2
    floor: int = 2
    apart: int = 2
    within: int = 2
    how_many: int = 2
    closest: int = 2
    fine: int = 1
    metric: int = 1
    several: int = 1
    which: int = 1
    order: int = 1
    extreme: int = 1
    pair: int = 1
    inside: int = 1
    empty: int = 1
    name_each: int = 0
    place_each: int = 0
    inside_each: int = 0
    near_each: int = 0
    reckon_each: int = 0
    legs: int = 0
    load: int = 0
    worked_count: int = 0
    worked_mcq: int = 0
    worked_distance: int = 0

    def __post_init__(self) -> None:
        if min(dataclasses.astuple(self)) < 0:
            raise ValueError("the numbers of captions must not be negative")

    @classmethod
    def only(cls, **counts: int) -> CaptionCounts:
        """These kinds and none of the others; raises TypeError for an unknown kind, ValueError for a negative number."""
        return cls(**{**dict.fromkeys(cls.__dataclass_fields__, 0), **counts})


@dataclasses.dataclass(frozen=True)
class Caption:
    """prompt with one "<mask>" per region, text, and the regions in the order of the masks."""

    prompt: str
    text: str
    regions: tuple[Region, ...] = ()


def name(region: Region) -> str:
    """Its noun; a transporter's with its state."""
    if region.kind == "transporter":
        return "loaded transporter" if region.thing.carrying else "empty transporter"
    return NOUNS[region.kind]


def place(region: Region) -> str:
    """Where its mask's centroid is: "(percent of width, percent of height)"."""
    return f"({min(int(100 * region.u), 99)}, {min(int(100 * region.v), 99)})"


def on_floor(region: Region) -> str:
    """Where it stands, in metres: "5.2 meters ahead, 1.3 meters left"."""
    side = "right" if region.right >= 0 else "left"
    return f"{region.ahead:.1f} meters ahead, {abs(region.right):.1f} meters {side}"


def _corner(region: Region) -> str:
    """A coarse place: "back left", "front", "middle right"."""
    along = "back" if region.v < 0.36 else "front" if region.v > 0.62 else "middle"
    across = " left" if region.u < 0.36 else " right" if region.u > 0.64 else ""
    return along + across


def scene_captions(regions: Sequence[Region], number: int, rng: np.random.Generator) -> list[Caption]:
    """Captions without regions: how many of what there are, then where the objects are.

    By turns the places are given in words, and in percent from left to right.
    """
    counts = []
    for kind in KINDS:
        count = sum(region.kind == kind for region in regions)
        noun = NOUNS[kind] if count == 1 else "shelves" if kind == "shelf" else f"{NOUNS[kind]}s"
        if count:
            counts.append(f"{'a' if count == 1 else NUMBER_WORDS[count]} {noun}")
    listed = " and ".join(filter(None, [", ".join(counts[:-1]), counts[-1] if counts else ""]))
    captions = []
    for i in range(number):
        shown = [regions[k] for k in rng.permutation(len(regions))[:8]]
        shown.sort(key=lambda region: region.u)
        if i % 2 == 1:
            prompt = ("Describe the warehouse.", "What is where in this picture?")[rng.integers(2)]
            places = ", ".join(f"{name(region)} {place(region)}" for region in shown)
            text = f"A warehouse with {listed}. From left to right: {places}."
        else:
            prompt = ("Describe the picture.", "What does this picture show?")[rng.integers(2)]
            text = f"A warehouse with {listed}." + "".join(
                f" {_article(name(region))} at the {_corner(region)}." for region in shown[::2]
            )
        captions.append(Caption(prompt, text))
    return captions


def _article(noun: str) -> str:
    return f"{'An' if noun[0] in 'aeiou' else 'A'} {noun}"


class Captioner:
    """Draws captions of regions of one scene; all choices come from the generator.

    Args:
      regions: what is seen.
      most: largest number of regions in one caption.
      rng: generator.
      style: of the worked captions.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        most: int,
        rng: np.random.Generator,
        style: AnswerStyle = AnswerStyle(decimals=1, settled=True, worked=True),
    ):
        self.regions, self.most, self.rng, self.style = regions, most, rng, style

    def captions(self, counts: CaptionCounts) -> list[Caption]:
        """Captions of every kind, as many as are wanted and the scene allows."""
        made: dict[tuple, Caption] = {}
        for kind, wanted in dataclasses.asdict(counts).items():
            make = getattr(self, f"_{kind}")
            for _ in range(wanted):
                caption = make()
                if caption is not None:
                    made.setdefault((caption.prompt, *(region.index for region in caption.regions)), caption)
        return list(made.values())

    def _some(self, least: int, most: int, kind: str | None = None) -> list[Region] | None:
        """A random number of regions in random order, None where there are too few."""
        pool = [region for region in self.regions if kind is None or region.kind == kind]
        most = min(most, self.most, len(pool))
        if most < least:
            return None
        number = int(self.rng.integers(least, most + 1))
        return [pool[i] for i in self.rng.permutation(len(pool))[:number]]

    def _pick(self, options: Sequence[str]) -> str:
        return options[self.rng.integers(len(options))]

    def _single(self) -> Caption | None:
        chosen = self._some(1, 1)
        return chosen and Caption(
            f"What is {MASK}?", f"{name(chosen[0]).capitalize()} at {worked.coarse_place(chosen[0])}.", tuple(chosen)
        )

    def _compare(self) -> Caption | None:
        chosen = self._some(2, 2)
        if chosen is None or abs(chosen[0].u - chosen[1].u) < SIDE_MARGIN:
            return None
        a, b = chosen
        side, along = "left" if a.u < b.u else "right", "nearer" if a.ahead < b.ahead else "farther"
        return Caption(f"Compare {MASK} with {MASK}.", f"To the {side} and {along}.", (a, b))

    def _side(self) -> Caption | None:
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        chosen = self._some(2, 2, kind)
        if chosen is None or abs(chosen[0].u - chosen[1].u) < SIDE_MARGIN:
            return None
        a, b = chosen
        side = "left" if a.u < b.u else "right"
        form = int(self.rng.integers(3))
        prompt = self._pick(phrases.LEFT_OR_RIGHT if form == 0 else phrases.IS_IT_THERE)
        prompt = prompt.format(noun=NOUNS[kind], side=("", "left", "right")[form])
        return Caption(prompt, f"{side.capitalize()}.", (a, b))

    def _floor(self) -> Caption | None:
        chosen = self._some(1, 1)
        if chosen is None:
            return None
        (region,) = chosen
        side = "right" if region.right >= 0 else "left"
        text = f"{round(region.ahead)} meters ahead, {round(abs(region.right))} meters {side}."
        return Caption(f"Where does {MASK} stand?", text, (region,))

    def _apart(self) -> Caption | None:
        worded = self.rng.random() < 0.5
        chosen = self._some(2, 2, "pallet" if worded else None)
        if chosen is None:
            return None
        prompt = self._pick(phrases.DISTANCE_OF_TWO) if worded else f"How far is {MASK} from {MASK}?"
        metres = round(floor_distance(chosen[0].thing, chosen[1].thing))
        return Caption(prompt, f"About {metres} meters.", tuple(chosen))

    def _within(self) -> Caption | None:
        wanted = self.rng.random() < 0.5
        pairs = [
            (pallet, buffer)
            for pallet in self.regions
            if pallet.kind == "pallet"
            for buffer in self.regions
            if buffer.kind == "buffer" and is_inside(pallet.thing, buffer.thing) == wanted
        ]
        if not pairs:
            return None
        pair = pairs[self.rng.integers(len(pairs))]
        return Caption(f"Is {MASK} inside {MASK}?", "Yes." if wanted else "No.", pair)

    def _how_many(self) -> Caption | None:
        buffers, pallets = self._some(1, 1, "buffer"), self._some(2, 6, "pallet")
        if buffers is None or pallets is None:
            return None
        count = sum(is_inside(r.thing, buffers[0].thing) for r in pallets)
        prompt = self._pick(phrases.COUNT_IN_ONE).format(pallets=masks(pallets))
        return Caption(prompt, f"{NUMBER_WORDS[count].capitalize()}.", (*pallets, *buffers))

    def _closest(self) -> Caption | None:
        chosen = self._some(3, 5)
        best = None if chosen is None else nearest(chosen[0], chosen[1:])
        if best is None:
            return None
        text = f"{named(best + 1)} is."
        return Caption(f"What is closest to {MASK}: {masks(chosen[1:])}?", text, tuple(chosen))

    def _fine(self) -> Caption | None:
        chosen = self._some(1, 1)
        return chosen and Caption(f"Locate {MASK}.", f"{place(chosen[0])}.", tuple(chosen))

    def _metric(self) -> Caption | None:
        chosen = self._some(1, 1)
        return chosen and Caption(f"Where is {MASK}?", f"{on_floor(chosen[0])}.", tuple(chosen))

    def _several(self) -> Caption | None:
        chosen = self._some(2, 8)
        if chosen is None:
            return None
        form = self.rng.choice(3, p=(0.6, 0.2, 0.2))
        if form == 0:
            parts, prompt = [f"{name(region)} at {place(region)}" for region in chosen], "What are {}?"
        elif form == 1:
            parts, prompt = [name(region) for region in chosen], "Name {}."
        else:
            parts, prompt = [on_floor(region) for region in chosen], "Where are {}?"
        text = " ".join(f"{named(i)} {part}." for i, part in enumerate(parts))
        return Caption(prompt.format(masks(chosen)), text, tuple(chosen))

    def _which(self) -> Caption | None:
        chosen = self._some(2, 8)
        if chosen is None:
            return None
        answer = chosen[0]
        chosen = [chosen[i] for i in self.rng.permutation(len(chosen))]
        if any(
            abs(r.u - answer.u) < PLACE_MARGIN and abs(r.v - answer.v) < PLACE_MARGIN for r in chosen if r is not answer
        ):
            return None
        text = f"{named(chosen.index(answer))} is at {place(answer)}."
        return Caption(f"Which of {masks(chosen)} is at {place(answer)}?", text, tuple(chosen))

    def _order(self) -> Caption | None:
        chosen = self._some(2, 5)
        if chosen is None:
            return None
        order = sorted(range(len(chosen)), key=lambda i: chosen[i].u)
        if any(chosen[b].u - chosen[a].u < SIDE_MARGIN for a, b in zip(order, order[1:])):
            return None
        text = f"From left to right: {' '.join(named(i) for i in order)}."
        return Caption(f"Order {masks(chosen)} from left to right.", text, tuple(chosen))

    def _extreme(self) -> Caption | None:
        chosen = self._some(2, 8, kind="pallet" if self.rng.random() < 0.5 else None)
        if chosen is None:
            return None
        which = self._pick(("leftmost", "rightmost", "nearest", "farthest"))
        sign = 1 if which in ("leftmost", "nearest") else -1
        if which in ("leftmost", "rightmost"):
            values, margin = [sign * region.u for region in chosen], SIDE_MARGIN
        else:
            values, margin = [sign * region.ahead for region in chosen], METRES_MARGIN
        best, second = sorted(range(len(chosen)), key=values.__getitem__)[:2]
        if values[second] - values[best] < margin:
            return None
        text = f"{named(best)} is."
        return Caption(f"Which of {masks(chosen)} is the {which}?", text, tuple(chosen))

    def _pair(self) -> Caption | None:
        chosen = self._some(2, 2)
        if chosen is None:
            return None
        a, b = chosen
        right, ahead = b.right - a.right, b.ahead - a.ahead
        text = (
            f"{named(1)} is {abs(right):.1f} meters to the {'right' if right >= 0 else 'left'} and "
            f"{abs(ahead):.1f} meters {'farther' if ahead >= 0 else 'nearer'}. "
            f"The distance is {floor_distance(a.thing, b.thing):.2f} meters."
        )
        return Caption(f"Seen from {MASK}, where is {MASK}?", text, (a, b))

    def _inside(self) -> Caption | None:
        buffers, pallets = self._some(1, 1, "buffer"), self._some(2, 7, "pallet")
        if buffers is None or pallets is None:
            return None
        inside = [named(i + 1) for i, r in enumerate(pallets) if is_inside(r.thing, buffers[0].thing)]
        text = f"{' '.join(inside)} {'is' if len(inside) == 1 else 'are'} inside." if inside else "None is inside."
        prompt = f"Which of the pallets are inside the buffer region {MASK}: {masks(pallets)}?"
        return Caption(prompt, text, (*buffers, *pallets))

    def _empty(self) -> Caption | None:
        chosen = self._some(2, 3, "transporter")
        if chosen is None:
            return None
        empty = [i for i, region in enumerate(chosen) if not region.thing.carrying]
        text = f"The transporter {named(empty[0])} is empty." if empty else "None is empty."
        return Caption(f"Which transporter of {masks(chosen)} is empty?", text, tuple(chosen))

    def _name_each(self) -> Caption | None:
        chosen = self._some(2, 7)
        if chosen is None:
            return None
        names = " ".join(f"{i} {name(region)}" for i, region in enumerate(chosen))
        return Caption(f"Name {masks(chosen)}.", f"{names}.", tuple(chosen))

    def _place_each(self) -> Caption | None:
        chosen = self._some(2, 6)
        if chosen is None:
            return None
        places = " ".join(f"{i} at {min(int(100 * region.u), 99)}" for i, region in enumerate(chosen))
        return Caption(f"Place {masks(chosen)}.", f"{places}.", tuple(chosen))

    def _inside_each(self) -> Caption | None:
        buffers, pallets = self._some(1, 1, "buffer"), self._some(1, 6, "pallet")
        if buffers is None or pallets is None:
            return None
        count = sum(is_inside(pallet.thing, buffers[0].thing) for pallet in pallets)
        text = f"{worked.insides(pallets, buffers[0], 1)}{NUMBER_WORDS[count].capitalize()}."
        return Caption(f"Inside {MASK}: {masks(pallets)}?", text, (*buffers, *pallets))

    def _near_each(self) -> Caption | None:
        chosen = self._some(3, 6)
        if chosen is None:
            return None
        best = nearest(chosen[0], chosen[1:])
        text = " ".join(
            f"{i} off {floor_distance(chosen[0].thing, other.thing):.1f}" for i, other in enumerate(chosen[1:], start=1)
        )
        text += "." if best is None else f". {named(best + 1)}."
        return Caption(f"Near {MASK}: {masks(chosen[1:])}?", text, tuple(chosen))

    def _reckon_each(self) -> Caption | None:
        chosen = self._some(4, 7)
        if chosen is None:
            return None
        text = worked.standing({0: chosen[0]})
        text += worked.reckoned(chosen[0], chosen[1:], 1, self.style.summary)
        return Caption(f"Reckon {MASK} to {masks(chosen[1:])}.", text.rstrip(), tuple(chosen))

    def _legs(self) -> Caption | None:
        chosen = self._some(2, 2)
        if chosen is None:
            return None
        metres = floor_distance(chosen[0].thing, chosen[1].thing)
        text = f"{worked.offset(*chosen, 1)}{metres:.1f} meters."
        return Caption(f"Measure {MASK} to {MASK}.", text, tuple(chosen))

    def _load(self) -> Caption | None:
        chosen = self._some(1, 1, "transporter")
        text = chosen and ("Loaded." if chosen[0].thing.carrying else "Empty.")
        return chosen and Caption(f"Is {MASK} loaded?", text, tuple(chosen))

    def _worked(self, category: str, say: Callable[..., str]) -> Caption | None:
        counted = self._some(1, 1, "buffer")
        asker = Asker(self.regions, counted[0].thing.number if counted else 0, self.rng, self.style)
        for asked in asker.ask(category, 1):
            prompt = asked.prompt.removeprefix(f"{IMAGE}\n")
            return Caption(prompt, asked.opening + say(asked.normalized_answer), asked.regions)
        return None

    def _worked_count(self) -> Caption | None:
        return self._worked("count", lambda count: f"{NUMBER_WORDS[count].capitalize()}.")

    def _worked_mcq(self) -> Caption | None:
        return self._worked("mcq", lambda number: f"{named(int(number))}.")

    def _worked_distance(self) -> Caption | None:
        return self._worked("distance", lambda metres: f"{metres:.1f} meters.")
