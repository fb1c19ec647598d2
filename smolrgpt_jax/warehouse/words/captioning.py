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
from smolrgpt_jax.warehouse.parameters import AnswerStyle, CaptionCounts
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.scene.objects import KINDS, pick
from smolrgpt_jax.warehouse.words import phrases, worked
from smolrgpt_jax.warehouse.words.questions import (
    NOUNS,
    NUMBER_WORDS,
    SIDE_MARGIN,
    Asker,
    masks,
    named,
    nearest,
    side_form,
    side_of,
)

METRES_MARGIN = 0.4  # between two objects that are compared by their distance ahead
PLACE_MARGIN = 0.06  # of the picture, between the place asked for and the next region
# Which of several: what is least of it, and how much less than of the next.
EXTREMES: dict[str, tuple[Callable[[Region], float], float]] = {
    "leftmost": (lambda region: region.u, SIDE_MARGIN),
    "rightmost": (lambda region: -region.u, SIDE_MARGIN),
    "nearest": (lambda region: region.ahead, METRES_MARGIN),
    "farthest": (lambda region: -region.ahead, METRES_MARGIN),
}


@dataclasses.dataclass(frozen=True)
class Caption:
    """prompt with one "<mask>" per region, text, and the regions in the order of the masks."""

    prompt: str
    text: str
    regions: tuple[Region, ...] = ()


def name(region: Region) -> str:
    """Its noun; a transporter's with its state."""
    state = ("loaded " if region.thing.carrying else "empty ") if region.kind == "transporter" else ""
    return state + NOUNS[region.kind]


def percent(share: float) -> int:
    return min(int(100 * share), 99)


def place(region: Region) -> str:
    """Where its mask's centroid is: "(percent of width, percent of height)"."""
    return f"({percent(region.u)}, {percent(region.v)})"


def on_floor(region: Region, decimals: int = 1) -> str:
    """Where it stands, in metres: "5.2 meters ahead, 1.3 meters left"."""
    side = "right" if region.right >= 0 else "left"
    return f"{region.ahead:.{decimals}f} meters ahead, {abs(region.right):.{decimals}f} meters {side}"


def number_inside(pallets: Sequence[Region], buffer: Region) -> str:
    """ "Two."."""
    return f"{NUMBER_WORDS[sum(is_inside(pallet, buffer) for pallet in pallets)].capitalize()}."


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
    listed = " and ".join(filter(None, [", ".join(counts[:-1]), *counts[-1:]]))
    captions = []
    for i in range(number):
        shown = sorted((regions[k] for k in rng.permutation(len(regions))[:8]), key=lambda region: region.u)
        if i % 2 == 1:
            prompt = pick(rng, ("Describe the warehouse.", "What is where in this picture?"))
            places = ", ".join(f"{name(region)} {place(region)}" for region in shown)
            text = f"A warehouse with {listed}. From left to right: {places}."
        else:
            prompt = pick(rng, ("Describe the picture.", "What does this picture show?"))
            text = " ".join([f"A warehouse with {listed}.", *map(_in_a_corner, shown[::2])])
        captions.append(Caption(prompt, text))
    return captions


def _in_a_corner(region: Region) -> str:
    """ "An empty transporter at the back left."."""
    along = "back" if region.v < 0.36 else "front" if region.v > 0.62 else "middle"
    across = " left" if region.u < 0.36 else " right" if region.u > 0.64 else ""
    return f"{'An' if name(region)[0] in 'aeiou' else 'A'} {name(region)} at the {along}{across}."


def about(*groups: tuple) -> Callable:
    """Draws the regions that a caption is about, for a function of them that returns prompt and text.

    There is no caption where the scene has too few regions or the function returns None.

    Args:
      groups: fewest and most regions, and their kind if it matters. The function takes a group of a
        fixed size as so many arguments, and else as a list.
    """

    def decorate(say: Callable) -> Callable[[Captioner], Caption | None]:
        def draw(self: Captioner) -> Caption | None:
            drawn = [self.some(*group) for group in groups]
            if None in drawn:
                return None
            arguments = []
            for (least, most, *_), regions in zip(groups, drawn):
                arguments += regions if least == most else [regions]
            said = say(self, *arguments)
            return said and Caption(*said, tuple(region for regions in drawn for region in regions))

        return draw

    return decorate


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
            for _ in range(wanted):
                caption = getattr(self, f"_{kind}")()
                if caption is not None:
                    made.setdefault((caption.prompt, *(region.index for region in caption.regions)), caption)
        return list(made.values())

    def some(self, least: int, most: int, kind: str | None = None) -> list[Region] | None:
        """A random number of regions in random order, None where there are too few."""
        pool = [region for region in self.regions if kind is None or region.kind == kind]
        most = min(most, self.most, len(pool))
        if most < least:
            return None
        number = int(self.rng.integers(least, most + 1))
        return [pool[i] for i in self.rng.permutation(len(pool))[:number]]

    @about((1, 1))
    def _single(self, region: Region) -> tuple:
        return f"What is {MASK}?", f"{name(region).capitalize()} at {worked.coarse_place(region)}."

    @about((2, 2))
    def _compare(self, a: Region, b: Region) -> tuple | None:
        side, along = side_of(a, b), "nearer" if a.ahead < b.ahead else "farther"
        return side and (f"Compare {MASK} with {MASK}.", f"To the {side} and {along}.")

    def _side(self) -> Caption | None:
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        pair = self.some(2, 2, kind)
        answer = pair and side_of(*pair)
        if answer is None:
            return None
        side, wordings = side_form(self.rng)
        prompt = pick(self.rng, wordings).format(noun=NOUNS[kind], side=side)
        return Caption(prompt, f"{answer.capitalize()}.", tuple(pair))

    @about((1, 1))
    def _floor(self, region: Region) -> tuple:
        return f"Where does {MASK} stand?", f"{on_floor(region, 0)}."

    def _apart(self) -> Caption | None:
        worded = self.rng.random() < 0.5
        pair = self.some(2, 2, "pallet" if worded else None)
        if pair is None:
            return None
        prompt = pick(self.rng, phrases.DISTANCE_OF_TWO) if worded else f"How far is {MASK} from {MASK}?"
        return Caption(prompt, f"About {round(floor_distance(*pair))} meters.", tuple(pair))

    def _within(self) -> Caption | None:
        wanted = self.rng.random() < 0.5
        pallets, buffers = ([r for r in self.regions if r.kind == kind] for kind in ("pallet", "buffer"))
        pairs = [(pallet, buffer) for pallet in pallets for buffer in buffers if is_inside(pallet, buffer) == wanted]
        return (
            Caption(f"Is {MASK} inside {MASK}?", "Yes." if wanted else "No.", pick(self.rng, pairs)) if pairs else None
        )

    def _how_many(self) -> Caption | None:
        buffers, pallets = self.some(1, 1, "buffer"), self.some(2, 6, "pallet")
        if buffers is None or pallets is None:
            return None
        prompt = pick(self.rng, phrases.COUNT_IN_ONE).format(pallets=masks(pallets))
        return Caption(prompt, number_inside(pallets, buffers[0]), (*pallets, *buffers))

    @about((3, 5))
    def _closest(self, regions: list[Region]) -> tuple | None:
        first, *group = regions
        best = nearest(first, group)
        return best and (f"What is closest to {MASK}: {masks(group)}?", f"{named(regions.index(best))} is.")

    @about((1, 1))
    def _fine(self, region: Region) -> tuple:
        return f"Locate {MASK}.", f"{place(region)}."

    @about((1, 1))
    def _metric(self, region: Region) -> tuple:
        return f"Where is {MASK}?", f"{on_floor(region)}."

    @about((2, 8))
    def _several(self, regions: list[Region]) -> tuple:
        prompt, say = (
            ("What are {}?", lambda region: f"{name(region)} at {place(region)}"),
            ("Name {}.", name),
            ("Where are {}?", on_floor),
        )[self.rng.choice(3, p=(0.6, 0.2, 0.2))]
        text = " ".join(f"{named(i)} {say(region)}." for i, region in enumerate(regions))
        return prompt.format(masks(regions)), text

    def _which(self) -> Caption | None:
        regions = self.some(2, 8)
        if regions is None:
            return None
        wanted, *others = regions
        regions = [regions[i] for i in self.rng.permutation(len(regions))]
        if any(max(abs(r.u - wanted.u), abs(r.v - wanted.v)) < PLACE_MARGIN for r in others):
            return None
        text = f"{named(regions.index(wanted))} is at {place(wanted)}."
        return Caption(f"Which of {masks(regions)} is at {place(wanted)}?", text, tuple(regions))

    @about((2, 5))
    def _order(self, regions: list[Region]) -> tuple | None:
        order = sorted(regions, key=lambda region: region.u)
        if any(b.u - a.u < SIDE_MARGIN for a, b in zip(order, order[1:])):
            return None
        text = f"From left to right: {' '.join(named(regions.index(region)) for region in order)}."
        return f"Order {masks(regions)} from left to right.", text

    def _extreme(self) -> Caption | None:
        regions = self.some(2, 8, "pallet" if self.rng.random() < 0.5 else None)
        if regions is None:
            return None
        which = pick(self.rng, tuple(EXTREMES))
        value, margin = EXTREMES[which]
        best, second = sorted(regions, key=value)[:2]
        if value(second) - value(best) < margin:
            return None
        text = f"{named(regions.index(best))} is."
        return Caption(f"Which of {masks(regions)} is the {which}?", text, tuple(regions))

    @about((2, 2))
    def _pair(self, a: Region, b: Region) -> tuple:
        right, ahead = b.right - a.right, b.ahead - a.ahead
        text = (
            f"{named(1)} is {abs(right):.1f} meters to the {'right' if right >= 0 else 'left'} and "
            f"{abs(ahead):.1f} meters {'farther' if ahead >= 0 else 'nearer'}. "
            f"The distance is {floor_distance(a, b):.2f} meters."
        )
        return f"Seen from {MASK}, where is {MASK}?", text

    @about((1, 1, "buffer"), (2, 7, "pallet"))
    def _inside(self, buffer: Region, pallets: list[Region]) -> tuple:
        inside = [named(i) for i, pallet in enumerate(pallets, 1) if is_inside(pallet, buffer)]
        text = f"{' '.join(inside)} {'is' if len(inside) == 1 else 'are'} inside." if inside else "None is inside."
        return f"Which of the pallets are inside the buffer region {MASK}: {masks(pallets)}?", text

    @about((2, 3, "transporter"))
    def _empty(self, regions: list[Region]) -> tuple:
        empty = [named(i) for i, region in enumerate(regions) if not region.thing.carrying]
        text = f"The transporter {empty[0]} is empty." if empty else "None is empty."
        return f"Which transporter of {masks(regions)} is empty?", text

    @about((2, 7))
    def _name_each(self, regions: list[Region]) -> tuple:
        return f"Name {masks(regions)}.", worked.in_turn(regions, 0, name).rstrip()

    @about((2, 6))
    def _place_each(self, regions: list[Region]) -> tuple:
        return f"Place {masks(regions)}.", worked.in_turn(regions, 0, lambda r: f"at {percent(r.u)}").rstrip()

    @about((1, 1, "buffer"), (1, 6, "pallet"))
    def _inside_each(self, buffer: Region, pallets: list[Region]) -> tuple:
        text = worked.insides(pallets, 1, buffer) + number_inside(pallets, buffer)
        return f"Inside {MASK}: {masks(pallets)}?", text

    @about((3, 6))
    def _near_each(self, regions: list[Region]) -> tuple:
        first, *group = regions
        best = nearest(first, group)
        text = worked.in_turn(group, 1, lambda other: f"off {floor_distance(first, other):.1f}")
        text += "" if best is None else f"{named(regions.index(best))}."
        return f"Near {MASK}: {masks(group)}?", text.rstrip()

    @about((4, 7))
    def _reckon_each(self, regions: list[Region]) -> tuple:
        first, *group = regions
        text = worked.standing({0: first}) + worked.reckoned(group, 1, first, self.style.summary)
        return f"Reckon {MASK} to {masks(group)}.", text.rstrip()

    @about((2, 2))
    def _legs(self, a: Region, b: Region) -> tuple:
        return f"Measure {MASK} to {MASK}.", f"{worked.offset(a, b, 1)}{floor_distance(a, b):.1f} meters."

    @about((1, 1, "transporter"))
    def _load(self, region: Region) -> tuple:
        return f"Is {MASK} loaded?", "Loaded." if region.thing.carrying else "Empty."

    def _worked(self, category: str, say: Callable[..., str]) -> Caption | None:
        """A question of a category with its opening and the value alone."""
        counted = self.some(1, 1, "buffer")
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
