"""Questions of the four warehouse categories about one scene, with worked answers.

Answers name regions "[Region i]", the i-th "<mask>" of the question. Masks of one kind come in
random order, so a region's number tells nothing. A question to which two objects would be almost
equally good answers is not asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.warehouse.parameters import AnswerStyle
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.scene.objects import pick
from smolrgpt_jax.warehouse.words import phrases, worked

SIDE_MARGIN = 0.02  # of the picture's width, between two centroids that are compared
DISTANCE_MARGIN = 0.10  # relative, between the nearest and the next
ZERO_SHARE = 0.18  # of the draws of a distance to a buffer; about 10 % are 0, as not all scenes have one
PAIR_WITH_IMAGE = 0.2  # share of short questions that begin with "<image>", as published; long ones all do
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ENDS = ("leftmost", "rightmost")
PLACES = (*ENDS, "middle")
NOUNS = {"pallet": "pallet", "buffer": "buffer region", "transporter": "transporter", "shelf": "shelf"}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with its answer."""

    category: str  # one of records.WAREHOUSE_CATEGORIES
    prompt: str  # with one "<mask>" per region, and "<image>" in front or not
    opening: str  # what the answer says before it concludes: workings, and which region a place in the question means
    conclusion: str  # the rest of it
    normalized_answer: (
        str | int | float
    )  # "left" or "right"; int (count); region number as string (mcq); float (distance)
    regions: tuple[Region, ...]  # in the order of the masks
    about: tuple  # what is asked, apart from its wording; two questions of a category and scene never share it

    @property
    def answer(self) -> str:
        """Free text."""
        return self.opening + self.conclusion


def masks(regions: Sequence[Region]) -> str:
    """One "<mask>" per region."""
    return " ".join([MASK] * len(regions))


def named(number: int) -> str:
    return f"[Region {number}]"


def side_of(a: Region, b: Region) -> str | None:
    """Whether `a` is to the "left" or "right" of `b`, None where it is not clear."""
    return None if abs(a.u - b.u) < SIDE_MARGIN else "left" if a.u < b.u else "right"


def side_form(rng: np.random.Generator) -> tuple[str, Sequence[str]]:
    """Draws how the side of one of two regions is asked for: the side that is named, if one is, and the wordings.

    It is not looked up, so in every wording both answers are equally likely.
    """
    side = ("", "left", "right")[rng.integers(3)]
    return side, phrases.IS_IT_THERE if side else phrases.LEFT_OR_RIGHT


def outermost(group: Sequence[Region], which: str) -> Region | None:
    """The leftmost, rightmost or middle region by centroid, None where it is not clear."""
    order = sorted(group, key=lambda region: region.u)
    gaps = [b.u - a.u for a, b in zip(order, order[1:])]
    if not gaps or (which == "middle" and len(group) != 3):
        return None
    place, margin = {"leftmost": (0, gaps[0]), "rightmost": (-1, gaps[-1]), "middle": (1, min(gaps))}[which]
    return order[place] if margin >= SIDE_MARGIN else None


def placed(group: Sequence[Region], places: Sequence[str] = PLACES) -> dict[str, Region]:
    """The regions that words like "leftmost" clearly mean, by word."""
    return {which: region for which in places if (region := outermost(group, which)) is not None}


def nearest(region: Region, group: Sequence[Region]) -> Region | None:
    """The region of a group that is closest on the floor, None where it is not clear."""
    order = sorted((floor_distance(region, other), i) for i, other in enumerate(group))
    if len(order) < 2 or order[1][0] < order[0][0] * (1 + DISTANCE_MARGIN):
        return None
    return group[order[0][1]]


class Draft:
    """A question under way, and what its answer has said so far.

    Args:
      rng: draws the wordings.
      style: of the answer.
      wordings: of the question.
      regions: asked about, in the order of the masks.
      places: what the wordings leave open; of a list of regions their masks.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        style: AnswerStyle,
        wordings: Sequence[str],
        regions: Sequence[Region],
        **places: str | list[Region],
    ):
        self.rng, self.style, self.regions, self.opening = rng, style, list(regions), ""
        self.form = int(rng.integers(len(wordings)))
        self.wording = wordings[self.form]
        places = {name: masks(value) if isinstance(value, list) else value for name, value in places.items()}
        self.prompt = self.wording.format(**places)

    def number(self, region: Region) -> int:
        return self.regions.index(region)

    def name(self, region: Region) -> str:
        return named(self.number(region))

    def worded(self, wordings: Sequence[str], **places: str) -> str:
        """A sentence of the answer, in a wording that is settled by the question's or drawn."""
        text = wordings[self.form % len(wordings)] if self.style.settled else pick(self.rng, wordings)
        return text.format(**places)

    def say(self, wordings: Sequence[str], **places: str) -> None:
        """Goes on with the answer before its conclusion."""
        self.opening += self.worded(wordings, **places)

    def introduce(self, region: Region, which: str) -> None:
        """Says which region a place in the question means."""
        noun = NOUNS[region.kind]
        self.say(phrases.NAMED, region=self.name(region), which=which, noun=noun, nouns=f"{noun}s")

    def work(self, text: Callable[..., str], group: Sequence[Region], *about: object) -> None:
        """Says something of each of a group of regions, in answers that are worked; `text`: a function of worked.py."""
        if self.style.worked:
            self.opening += text(group, self.number(group[0]), *about)

    def place(self, *regions: Region) -> None:
        """Says where regions are, in answers that are worked."""
        if self.style.worked:
            text = worked.standing if self.style.metres else worked.located
            self.opening += text({self.number(region): region for region in regions})

    def compare(self, region: Region, group: Sequence[Region]) -> None:
        """Says how far each of a group is from a region, in answers that are worked."""
        self.place(region)
        if self.style.metres:
            self.work(worked.reckoned, group, region, self.style.summary)
        else:
            self.work(worked.nearness, group, region)

    def distance(
        self, a: Region, b: Region, about: tuple, wordings: Sequence[str] = (), with_image: float = 1.0
    ) -> Asked:
        """Concludes with the distance of two regions, after its legs where the answer is worked."""
        self.place(a, b)
        if self.style.worked:
            self.opening += worked.legs(a, b, self.style.summary) if self.style.metres else worked.offset(a, b)
        metres = round(floor_distance(a, b), self.style.decimals)
        wordings = wordings or (phrases.DISTANCE_ANSWERS if metres else phrases.INSIDE_ANSWERS)
        a, b = (f"{'' if r.kind == 'transporter' else 'the '}{NOUNS[r.kind]} {self.name(r)}" for r in (a, b))
        text = self.worded(wordings, a=a, b=b, A=a[0].upper() + a[1:], metres=f"{metres:.{self.style.decimals}f}")
        return self.asked("distance", text, metres, about, with_image)

    def asked(self, category: str, conclusion: str, value: str | float, about: tuple, with_image: float = 1.0) -> Asked:
        """The question with its answer; with_image: share of such questions that begin with "<image>"."""
        prompt = f"{IMAGE}\n{self.prompt}" if with_image == 1 or self.rng.random() < with_image else self.prompt
        return Asked(category, prompt, self.opening, conclusion, value, tuple(self.regions), about)


class Asker:
    """Draws questions about one scene; all choices come from the generator.

    Args:
      regions: what is seen.
      counted: number of the buffer that counting may ask about, 0 for none.
      rng: generator.
      style: of the answers.
    """

    def __init__(
        self, regions: Sequence[Region], counted: int, rng: np.random.Generator, style: AnswerStyle = AnswerStyle()
    ):
        self.regions, self.counted, self.rng, self.style = regions, counted, rng, style
        self._shuffle()

    def ask(self, category: str, most: int) -> list[Asked]:
        """Up to `most` different questions of one category, in random order of their forms."""
        forms, weights = zip(*FORMS[category])
        asked: dict[tuple, Asked] = {}
        for _ in range(6 * most):
            if len(asked) == most:
                break
            self._shuffle()
            question = forms[self.rng.choice(len(forms), p=weights)](self)
            if question is not None:
                asked.setdefault(question.about, question)
        return list(asked.values())

    def _shuffle(self) -> None:
        order = [self.regions[i] for i in self.rng.permutation(len(self.regions))]
        self.pallets, self.buffers, self.shelves, self.transporters = (
            [region for region in order if region.kind == kind] for kind in ("pallet", "buffer", "shelf", "transporter")
        )

    def _draft(self, wordings: Sequence[str], regions: Sequence[Region], **places: str | list[Region]) -> Draft:
        return Draft(self.rng, self.style, wordings, regions, **places)

    def _left_right(self) -> Asked | None:
        kind = "buffer" if self.rng.random() < 0.2 and len(self.buffers) > 1 else "pallet"
        pair = (self.buffers if kind == "buffer" else self.pallets)[:2]
        answer = side_of(*pair) if len(pair) == 2 else None
        if answer is None:
            return None
        side, wordings = side_form(self.rng)
        draft = self._draft(wordings, pair, noun=NOUNS[kind], side=side)
        text = draft.worded(phrases.SIDE_ANSWERS, noun=NOUNS[kind], side=answer)
        return draft.asked("left_right", text, answer, _pair(*pair), PAIR_WITH_IMAGE)

    def _distance_of_two(self) -> Asked | None:
        pair = self.pallets[:2]
        if len(pair) < 2:
            return None
        draft = self._draft(phrases.DISTANCE_OF_TWO, pair)
        return draft.distance(*pair, _pair(*pair), phrases.DISTANCE_OF_TWO_ANSWERS, PAIR_WITH_IMAGE)

    def _distance_of_extremes(self) -> Asked | None:
        ends = placed(self.pallets, ENDS)
        if len(ends) < 2:
            return None
        left, right = ends.values()
        draft = self._draft(phrases.DISTANCE_OF_EXTREMES, self.pallets, pallets=self.pallets)
        draft.work(worked.marks, self.pallets, {left: "leftmost", right: "rightmost"})
        draft.say(phrases.EXTREMES, left=draft.name(left), right=draft.name(right))
        return draft.distance(left, right, ("extremes",))

    def _distance_to_buffer(self) -> Asked | None:
        """From the leftmost or rightmost pallet to the leftmost, middle or rightmost buffer."""
        pallets, buffers = placed(self.pallets, ENDS), placed(self.buffers)
        case = self._with_wanted_zero(
            [(p, b, which, where) for which, p in pallets.items() for where, b in buffers.items()]
        )
        if case is None:
            return None
        pallet, buffer, which, where = case
        regions = [*self.buffers, *self.pallets]
        draft = self._draft(
            phrases.DISTANCE_TO_BUFFER, regions, buffers=self.buffers, pallets=self.pallets, which=which, where=where
        )
        draft.work(worked.marks, regions, {buffer: where, pallet: which})
        draft.introduce(pallet, which)
        draft.introduce(buffer, where)
        return draft.distance(pallet, buffer, ("pallet to buffer", which, where))

    def _distance_of_transporter(self) -> Asked | None:
        buffers = placed(self.buffers)
        case = self._with_wanted_zero([(own, b, where) for own in self.transporters for where, b in buffers.items()])
        if case is None:
            return None
        transporter, buffer, where = case
        draft = self._draft(
            phrases.DISTANCE_OF_TRANSPORTER, [transporter, *self.buffers], where=where, buffers=self.buffers
        )
        if draft.prompt.startswith("Among"):  # the buffers first
            draft.regions = [*self.buffers, transporter]
        draft.work(worked.marks, self.buffers, {buffer: where})
        draft.introduce(buffer, where)
        return draft.distance(transporter, buffer, ("transporter", where, transporter.index))

    def _with_wanted_zero(self, cases: list[tuple]) -> tuple | None:
        """One of the cases (two regions, ...), a distance of zero as often as ZERO_SHARE says."""
        zero = self.rng.random() < ZERO_SHARE
        cases = [case for case in cases if (round(floor_distance(*case[:2]), self.style.decimals) == 0) == zero]
        return pick(self.rng, cases) if cases else None

    def _distance_to_shelf(self) -> Asked | None:
        """From the leftmost or rightmost pallet to a shelf, given alone or as the one on a side."""
        which = pick(self.rng, ENDS)
        pallet = outermost(self.pallets, which)
        found = self._some_shelf(0.5) if pallet is not None else None
        if found is None:
            return None
        shelf, shelves, side = found
        draft = self._draft(
            phrases.DISTANCE_TO_ONE_SHELF if side else phrases.DISTANCE_TO_SHELF,
            [*self.pallets, *shelves],
            pallets=self.pallets,
            shelves=shelves,
            which=which,
            side=side,
        )
        draft.work(worked.marks, draft.regions if side else self.pallets, {pallet: which, shelf: f"{side}most"})
        draft.introduce(pallet, which)
        if side:
            draft.opening += phrases.SHELF.format(shelf=draft.name(shelf), side=side)
        return draft.distance(pallet, shelf, ("shelf", which, shelf.index))

    def _some_shelf(self, by_side: float) -> tuple[Region, list[Region], str] | None:
        """A shelf, those it is among, and its side; alone and without a side but for a share of the scenes with two."""
        if not self.shelves:
            return None
        many = len(self.shelves) == 2 and self.rng.random() < by_side
        side = pick(self.rng, ("left", "right"))
        if not many:
            return self.shelves[0], self.shelves[:1], ""
        shelf = outermost(self.shelves, f"{side}most")
        return None if shelf is None else (shelf, self.shelves, side)

    def _count(self) -> Asked | None:
        """Pallets in the counted buffer, which is given, or named by its place or by a shelf."""
        buffer = next((region for region in self.buffers if region.thing.number == self.counted), None)
        if buffer is None or len(self.pallets) < 2:
            return None
        groups = {"buffers": self.buffers, "pallets": self.pallets}
        regions, shelf = [*self.buffers, *self.pallets], self.shelves[0] if len(self.shelves) == 1 else None
        if len(self.buffers) == 1 or self.rng.random() < 0.15:
            draft = self._draft(phrases.COUNT_IN_ONE, [*self.pallets, buffer], **groups)
        elif self.rng.random() < 0.25 and shelf is not None and nearest(shelf, self.buffers) is buffer:
            draft = self._draft(phrases.COUNT_AT_SHELF, [*regions, shelf], **groups)
            draft.compare(shelf, self.buffers)
            draft.say(phrases.BUFFER_ANSWERS, buffer=draft.name(buffer), shelf=draft.name(shelf))
            draft.opening += " "
        else:
            place = next((where for where, region in placed(self.buffers).items() if region is buffer), None)
            if place is None:
                return None
            draft = self._draft(phrases.COUNT, regions, **groups, where=place)
            draft.work(worked.marks, self.buffers, {buffer: place})
            draft.introduce(buffer, place)
        draft.place(buffer)
        draft.work(worked.insides, self.pallets, buffer)
        inside = [draft.name(pallet) for pallet in self.pallets if is_inside(pallet, buffer)]
        are, pallets = ("is", "pallet") if len(inside) == 1 else ("are", "pallets")
        words = {"are": are, "pallets": pallets, "buffer": draft.name(buffer), "count": NUMBER_WORDS[len(inside)]}
        found = phrases.NONE_FOUND.format(**words)
        if inside:
            found = draft.worded(phrases.FOUND, **words, listed=" ".join(inside))
        text = found + draft.worded(phrases.TOTALS, **words)
        return draft.asked("count", text, len(inside), ("count", draft.wording))

    def _closest_to_empty(self) -> tuple[Region, Region] | None:
        """The one empty transporter and the pallet that is clearly closest to it."""
        empty = [region for region in self.transporters if not region.thing.carrying]
        pallet = nearest(empty[0], self.pallets) if len(empty) == 1 else None
        return None if pallet is None else (empty[0], pallet)

    def _pallet_for_one(self) -> Asked | None:
        found = self._closest_to_empty()
        if found is None:
            return None
        transporter, pallet = found
        draft = self._draft(phrases.PALLET_FOR_ONE, [*self.pallets, transporter], pallets=self.pallets)
        return self._best_pallet(draft, transporter, pallet, "pallet for one")

    def _pallet_for_empty(self) -> Asked | None:
        found = self._closest_to_empty()
        if found is None or len(self.transporters) < 2:
            return None
        transporter, pallet = found
        wordings, regions = phrases.PALLETS_FIRST, [*self.pallets, *self.transporters]
        if self.rng.random() < 0.5:
            wordings, regions = phrases.TRANSPORTERS_FIRST, [*self.transporters, *self.pallets]
        draft = self._draft(wordings, regions, transporters=self.transporters, pallets=self.pallets)
        draft.work(worked.loads, self.transporters)
        draft.say(phrases.EMPTY, transporter=draft.name(transporter))
        return self._best_pallet(draft, transporter, pallet, "pallet for empty")

    def _best_pallet(self, draft: Draft, transporter: Region, pallet: Region, about: str) -> Asked:
        draft.compare(transporter, self.pallets)
        names = {"pallet": draft.name(pallet), "transporter": draft.name(transporter)}
        text = draft.worded(phrases.PALLET_ANSWERS, **names)
        return draft.asked("mcq", text, str(draft.number(pallet)), (about,))

    def _buffer_near(self) -> Asked | None:
        """The buffer closest to a shelf, which is given alone or as the one on a side."""
        found = self._some_shelf(0.4)
        buffer = nearest(found[0], self.buffers) if found else None
        if buffer is None:
            return None
        shelf, shelves, side = found
        wordings = phrases.BUFFER_NEAR_ONE if side else phrases.BUFFER_NEAR
        draft = self._draft(wordings, [*self.buffers, *shelves], buffers=self.buffers, side=side, shelves=shelves)
        if side:
            draft.work(worked.marks, shelves, {shelf: f"{side}most"})
            draft.opening += phrases.SHELF.format(shelf=draft.name(shelf), side=side)
        draft.compare(shelf, self.buffers)
        text = draft.worded(phrases.BUFFER_ANSWERS, buffer=draft.name(buffer), shelf=draft.name(shelf))
        return draft.asked("mcq", text, str(draft.number(buffer)), ("buffer near", shelf.index))

    def _outermost(self) -> Asked | None:
        """The leftmost or rightmost of three pallets or buffers."""
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        which = pick(self.rng, ENDS)
        group = (self.buffers if kind == "buffer" else self.pallets)[:3]
        best = outermost(group, which) if len(group) == 3 else None
        if best is None:
            return None
        draft = self._draft(phrases.OUTERMOST, group, noun=NOUNS[kind], which=which)
        draft.work(worked.marks, group, {best: which})
        text = draft.worded(phrases.OUTERMOST_ANSWERS, noun=NOUNS[kind], region=draft.name(best), which=which)
        return draft.asked("mcq", text, str(draft.number(best)), ("outermost", kind), PAIR_WITH_IMAGE)


def _pair(a: Region, b: Region) -> tuple:
    """What two questions about the same two regions share."""
    return tuple(sorted((a.index, b.index)))


# Ways to ask of each category, and how often each is drawn.
FORMS = {
    "left_right": ((Asker._left_right, 1.0),),
    "count": ((Asker._count, 1.0),),
    "mcq": (
        (Asker._pallet_for_one, 0.35),
        (Asker._pallet_for_empty, 0.35),
        (Asker._buffer_near, 0.14),
        (Asker._outermost, 0.16),
    ),
    "distance": (
        (Asker._distance_of_two, 0.35),
        (Asker._distance_of_extremes, 0.13),
        (Asker._distance_to_buffer, 0.2),
        (Asker._distance_to_shelf, 0.17),
        (Asker._distance_of_transporter, 0.15),
    ),
}
