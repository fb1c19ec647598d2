"""Captions that teach a model from scratch to see: what is there, where, and which region is which.

Places in the picture are percent of its width and height, 0 to 99; on the floor they are metres from the point below the camera, ahead
along its heading and left or right of it. Both are those of the questions.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.warehouse.parameters import AnswerStyle
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.scene.objects import KINDS, Rng, pick
from smolrgpt_jax.warehouse.words import questions, worked
from smolrgpt_jax.warehouse.words.questions import NOUNS, NUMBER_WORDS, Unclear, clear, masks, named
from smolrgpt_jax.warehouse.words.wordings import WORDINGS

METRES_MARGIN = 0.4  # between two objects that are compared by their distance ahead
PLACE_MARGIN = 0.06  # of the picture, between the place asked for and the next region
# Which of several: what is least of it, and how much less than of the next.
EXTREMES: dict[str, tuple[Callable[[Region], float], float]] = {
    "leftmost": (lambda region: region.u, questions.SIDE_MARGIN),
    "rightmost": (lambda region: -region.u, questions.SIDE_MARGIN),
    "nearest": (lambda region: region.ahead, METRES_MARGIN),
    "farthest": (lambda region: -region.ahead, METRES_MARGIN),
}
# Of a worked question the value alone, by its category.
VALUES: dict[str, Callable[..., str]] = {
    "count": lambda count: f"{NUMBER_WORDS[count].capitalize()}.",
    "mcq": lambda number: f"{named(int(number))}.",
    "distance": lambda metres: f"{metres:.1f} meters.",
}


@dataclasses.dataclass(frozen=True)
class Caption:
    """prompt with one "<mask>" per region, text, and the regions in the order of the masks."""

    prompt: str
    text: str
    regions: tuple[Region, ...] = ()


def name(region: Region) -> str:
    """Its noun; a transporter's with its state."""
    return f"{load(region).lower()} transporter" if region.kind == "transporter" else NOUNS[region.kind]


def percent(share: float) -> int:
    return min(int(100 * share), 99)


def place(region: Region) -> str:
    """Where its mask's centroid is: "(percent of width, percent of height)"."""
    return f"({percent(region.u)}, {percent(region.v)})"


def on_floor(region: Region, decimals: int = 1) -> str:
    """Where it stands, in metres: "5.2 meters ahead, 1.3 meters left"."""
    side = "right" if region.right >= 0 else "left"
    return f"{region.ahead:.{decimals}f} meters ahead, {abs(region.right):.{decimals}f} meters {side}"


def load(region: Region) -> str:
    return "Loaded" if region.thing.carrying else "Empty"


def number_inside(pallets: Sequence[Region], buffer: Region) -> str:
    """ "Two."."""
    return f"{NUMBER_WORDS[sum(is_inside(pallet, buffer) for pallet in pallets)].capitalize()}."


def scene_captions(regions: Sequence[Region], number: int, rng: Rng) -> list[Caption]:
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


class Captioner:
    """Draws captions of regions of one scene; all choices come from the generator.

    A function for every kind of captions.toml, which raises Unclear where the scene has no such caption. regions: what is seen;
    most: largest number of them in one caption; style: of the worked captions.
    """

    def __init__(self, regions: Sequence[Region], most: int, rng: Rng, style: AnswerStyle):
        self.regions, self.most, self.rng, self.style = regions, most, rng, style

    def captions(self, counts: Mapping[str, int]) -> list[Caption]:
        """Captions of every kind, as many as are wanted and the scene allows."""
        made: dict[tuple[Hashable, ...], Caption] = {}
        for kind, wanted in counts.items():
            for _ in range(wanted):
                with contextlib.suppress(Unclear):
                    caption = getattr(self, f"_{kind}")()
                    made.setdefault((caption.prompt, *(region.index for region in caption.regions)), caption)
        return list(made.values())

    def _some(self, least: int, most: int, kind: str | None = None) -> list[Region]:
        """A random number of regions in random order; raises Unclear where there are too few."""
        pool = [region for region in self.regions if kind is None or region.kind == kind]
        most = min(most, self.most, len(pool))
        if most < least:
            raise Unclear
        number = int(self.rng.integers(least, most + 1))
        return [pool[i] for i in self.rng.permutation(len(pool))[:number]]

    def _one(self, prompt: str, say: Callable[[Region], str], kind: str | None = None) -> Caption:
        (region,) = self._some(1, 1, kind)
        return Caption(prompt, f"{say(region)}.", (region,))

    _single = functools.partialmethod(
        _one, f"What is {MASK}?", lambda region: f"{name(region).capitalize()} at {worked.coarse_place(region)}"
    )
    _floor = functools.partialmethod(_one, f"Where does {MASK} stand?", functools.partial(on_floor, decimals=0))
    _fine = functools.partialmethod(_one, f"Locate {MASK}.", place)
    _metric = functools.partialmethod(_one, f"Where is {MASK}?", on_floor)
    _load = functools.partialmethod(_one, f"Is {MASK} loaded?", load, "transporter")

    def _compare(self) -> Caption:
        a, b = self._some(2, 2)
        along = "nearer" if a.ahead < b.ahead else "farther"
        return Caption(f"Compare {MASK} with {MASK}.", f"To the {questions.side_of(a, b)} and {along}.", (a, b))

    def _side(self) -> Caption:
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        pair = self._some(2, 2, kind)
        answer = questions.side_of(*pair)
        side, form = questions.side_form(self.rng)
        prompt = pick(self.rng, WORDINGS[form]).format(noun=NOUNS[kind], side=side)
        return Caption(prompt, f"{answer.capitalize()}.", tuple(pair))

    def _apart(self) -> Caption:
        worded = self.rng.random() < 0.5
        pair = self._some(2, 2, "pallet" if worded else None)
        prompt = pick(self.rng, WORDINGS["distance_of_two"]) if worded else f"How far is {MASK} from {MASK}?"
        return Caption(prompt, f"About {round(floor_distance(*pair))} meters.", tuple(pair))

    def _within(self) -> Caption:
        wanted = self.rng.random() < 0.5
        pallets, buffers = ([r for r in self.regions if r.kind == kind] for kind in ("pallet", "buffer"))
        pairs = [(pallet, buffer) for pallet in pallets for buffer in buffers if is_inside(pallet, buffer) == wanted]
        return Caption(f"Is {MASK} inside {MASK}?", "Yes." if wanted else "No.", pick(self.rng, clear(pairs)))

    def _how_many(self) -> Caption:
        (buffer,), pallets = self._some(1, 1, "buffer"), self._some(2, 6, "pallet")
        prompt = pick(self.rng, WORDINGS["count_in_one"]).format(pallets=masks(pallets))
        return Caption(prompt, number_inside(pallets, buffer), (*pallets, buffer))

    def _closest(self) -> Caption:
        first, *group = self._some(3, 5)
        text = f"{named(1 + group.index(clear(questions.nearest(first, group))))} is."
        return Caption(f"What is closest to {MASK}: {masks(group)}?", text, (first, *group))

    def _several(self) -> Caption:
        regions = self._some(2, 8)
        prompt, say = (
            ("What are {}?", lambda region: f"{name(region)} at {place(region)}"),
            ("Name {}.", name),
            ("Where are {}?", on_floor),
        )[self.rng.choice(3, p=(0.6, 0.2, 0.2))]
        text = " ".join(f"{named(i)} {say(region)}." for i, region in enumerate(regions))
        return Caption(prompt.format(masks(regions)), text, tuple(regions))

    def _which(self) -> Caption:
        regions = self._some(2, 8)
        wanted, *others = regions
        regions = [regions[i] for i in self.rng.permutation(len(regions))]
        if any(max(abs(r.u - wanted.u), abs(r.v - wanted.v)) < PLACE_MARGIN for r in others):
            raise Unclear
        text = f"{named(regions.index(wanted))} is at {place(wanted)}."
        return Caption(f"Which of {masks(regions)} is at {place(wanted)}?", text, tuple(regions))

    def _order(self) -> Caption:
        regions = self._some(2, 5)
        order = sorted(regions, key=lambda region: region.u)
        if any(b.u - a.u < questions.SIDE_MARGIN for a, b in zip(order, order[1:])):
            raise Unclear
        text = f"From left to right: {' '.join(named(regions.index(region)) for region in order)}."
        return Caption(f"Order {masks(regions)} from left to right.", text, tuple(regions))

    def _extreme(self) -> Caption:
        regions = self._some(2, 8, "pallet" if self.rng.random() < 0.5 else None)
        which = pick(self.rng, tuple(EXTREMES))
        value, margin = EXTREMES[which]
        best, second = sorted(regions, key=value)[:2]
        if value(second) - value(best) < margin:
            raise Unclear
        text = f"{named(regions.index(best))} is."
        return Caption(f"Which of {masks(regions)} is the {which}?", text, tuple(regions))

    def _pair(self) -> Caption:
        a, b = self._some(2, 2)
        right, ahead = b.right - a.right, b.ahead - a.ahead
        text = (
            f"{named(1)} is {abs(right):.1f} meters to the {'right' if right >= 0 else 'left'} and "
            f"{abs(ahead):.1f} meters {'farther' if ahead >= 0 else 'nearer'}. "
            f"The distance is {floor_distance(a, b):.2f} meters."
        )
        return Caption(f"Seen from {MASK}, where is {MASK}?", text, (a, b))

    def _inside(self) -> Caption:
        (buffer,), pallets = self._some(1, 1, "buffer"), self._some(2, 7, "pallet")
        inside = [named(i) for i, pallet in enumerate(pallets, 1) if is_inside(pallet, buffer)]
        text = f"{' '.join(inside)} {'is' if len(inside) == 1 else 'are'} inside." if inside else "None is inside."
        prompt = f"Which of the pallets are inside the buffer region {MASK}: {masks(pallets)}?"
        return Caption(prompt, text, (buffer, *pallets))

    def _empty(self) -> Caption:
        regions = self._some(2, 3, "transporter")
        empty = [named(i) for i, region in enumerate(regions) if not region.thing.carrying]
        text = f"The transporter {empty[0]} is empty." if empty else "None is empty."
        return Caption(f"Which transporter of {masks(regions)} is empty?", text, tuple(regions))

    def _each(self, prompt: str, say: Callable[[Region], str], most: int) -> Caption:
        regions = self._some(2, most)
        return Caption(prompt.format(masks(regions)), worked.in_turn(regions, 0, say).rstrip(), tuple(regions))

    _name_each = functools.partialmethod(_each, "Name {}.", name, 7)
    _place_each = functools.partialmethod(_each, "Place {}.", lambda region: f"at {percent(region.u)}", 6)

    def _inside_each(self) -> Caption:
        (buffer,), pallets = self._some(1, 1, "buffer"), self._some(1, 6, "pallet")
        text = worked.insides(pallets, 1, buffer) + number_inside(pallets, buffer)
        return Caption(f"Inside {MASK}: {masks(pallets)}?", text, (buffer, *pallets))

    def _near_each(self) -> Caption:
        first, *group = self._some(3, 6)
        best = questions.nearest(first, group)
        text = worked.in_turn(group, 1, lambda other: f"off {floor_distance(first, other):.1f}")
        text += "" if best is None else f"{named(1 + group.index(best))}."
        return Caption(f"Near {MASK}: {masks(group)}?", text.rstrip(), (first, *group))

    def _reckon_each(self) -> Caption:
        first, *group = self._some(4, 7)
        text = worked.standing({0: first}) + worked.reckoned(group, 1, first, self.style.summary)
        return Caption(f"Reckon {MASK} to {masks(group)}.", text.rstrip(), (first, *group))

    def _legs(self) -> Caption:
        a, b = self._some(2, 2)
        text = f"{worked.offset(a, b, 1)}{floor_distance(a, b):.1f} meters."
        return Caption(f"Measure {MASK} to {MASK}.", text, (a, b))

    def _worked(self, category: str) -> Caption:
        """A question of a category with its opening and the value alone."""
        (buffer,) = self._some(1, 1, "buffer")
        asker = questions.Asker(self.regions, buffer.thing.number, self.rng, self.style)
        for asked in asker.ask(category, 1):
            prompt, value = asked.prompt.removeprefix(f"{IMAGE}\n"), VALUES[category](asked.normalized_answer)
            return Caption(prompt, asked.opening + value, asked.regions)
        raise Unclear

    _worked_count = functools.partialmethod(_worked, "count")
    _worked_mcq = functools.partialmethod(_worked, "mcq")
    _worked_distance = functools.partialmethod(_worked, "distance")
