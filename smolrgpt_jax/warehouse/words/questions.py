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
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.words import phrases, worked

SIDE_MARGIN = 0.02  # of the picture's width, between two centroids that are compared
DISTANCE_MARGIN = 0.10  # relative, between the nearest and the next
ZERO_SHARE = 0.18  # of the draws of a distance to a buffer; about 10 % are 0, as not all scenes have one
PAIR_WITH_IMAGE = 0.2  # share of short questions that begin with "<image>", as published; long ones all do
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
PLACES = ("leftmost", "rightmost", "middle")
NOUNS = {"pallet": "pallet", "buffer": "buffer region", "transporter": "transporter", "shelf": "shelf"}


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question with its answer.

    Attributes:
      category: one of records.WAREHOUSE_CATEGORIES.
      prompt: with one "<mask>" per region, and "<image>" in front or not.
      opening: what the answer says before it concludes: workings, see worked.py, and which region a place in the question means.
      conclusion: the rest of it.
      normalized_answer: "left" or "right"; int (count); region number as string (mcq); float (distance).
      regions: in the order of the masks.
      about: what is asked, apart from its wording; two questions of a scene never share it.
    """

    category: str
    prompt: str
    opening: str
    conclusion: str
    normalized_answer: str | int | float
    regions: tuple[Region, ...]
    about: tuple

    @property
    def answer(self) -> str:
        """Free text."""
        return self.opening + self.conclusion


@dataclasses.dataclass(frozen=True)
class AnswerStyle:
    """How answers are worded.

    Attributes:
      decimals: of distances in metres, 0 to 2.
      settled: the wording of a question decides that of its answer, so that nothing in an answer is left to chance; small
        models learn sooner from such answers. Otherwise the answer's wording is drawn anew.
      worked: an answer first says of every region in turn what its conclusion needs, see worked.py. The published ones do not.
      metres: workings place regions in whole metres on the floor, so that their distances follow from text; otherwise in tenths of
        the picture.
      summary: workings in metres also say what a conclusion is drawn from: the nearest so far after each of a list, and the distance
        of a pair in whole metres.
    """

    decimals: int = 2
    settled: bool = False
    worked: bool = False
    metres: bool = False
    summary: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= 2:
            raise ValueError(f"distances have 0 to 2 decimals, not {self.decimals}")


def masks(regions: Sequence[Region]) -> str:
    """One "<mask>" per region."""
    return " ".join([MASK] * len(regions))


def named(number: int) -> str:
    return f"[Region {number}]"


def outermost(group: Sequence[Region], which: str) -> int | None:
    """Index of the leftmost, rightmost or middle region by centroid, None where it is not clear."""
    order = sorted(range(len(group)), key=lambda i: group[i].u)
    gaps = [group[b].u - group[a].u for a, b in zip(order, order[1:])]
    if not gaps or (which == "middle" and len(group) != 3):
        return None
    index, margin = {
        "leftmost": (order[0], gaps[0]),
        "rightmost": (order[-1], gaps[-1]),
        "middle": (order[1], min(gaps)),
    }[which]
    return index if margin >= SIDE_MARGIN else None


def nearest(region: Region, group: Sequence[Region]) -> int | None:
    """Index of the region of a group that is closest on the floor, None where it is not clear."""
    distances = [floor_distance(region.thing, other.thing) for other in group]
    order = sorted(range(len(group)), key=distances.__getitem__)
    if len(order) < 2 or distances[order[1]] < distances[order[0]] * (1 + DISTANCE_MARGIN):
        return None
    return order[0]


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
        self._wording = 0  # of the question under way, among those of its form
        self._shuffle()

    def _shuffle(self) -> None:
        order = [self.regions[i] for i in self.rng.permutation(len(self.regions))]
        self.pallets, self.buffers, self.shelves, self.transporters = (
            [region for region in order if region.kind == kind] for kind in ("pallet", "buffer", "shelf", "transporter")
        )

    def ask(self, category: str, most: int) -> list[Asked]:
        """Up to ``most`` different questions of one category, in random order of their forms."""
        forms, weights = zip(
            *{
                "left_right": ((self._left_right, 1.0),),
                "count": ((self._count, 1.0),),
                "mcq": (
                    (self._pallet_for_one, 0.35),
                    (self._pallet_for_empty, 0.35),
                    (self._buffer_near, 0.14),
                    (self._outermost, 0.16),
                ),
                "distance": (
                    (self._distance_of_two, 0.35),
                    (self._distance_of_extremes, 0.13),
                    (self._distance_to_buffer, 0.2),
                    (self._distance_to_shelf, 0.17),
                    (self._distance_of_transporter, 0.15),
                ),
            }[category]
        )
        asked: dict[tuple, Asked] = {}
        for _ in range(6 * most):
            if len(asked) == most:
                break
            self._shuffle()
            question = forms[self.rng.choice(len(forms), p=weights)]()
            if question is not None:
                asked.setdefault(question.about, question)
        return list(asked.values())

    def _pick(self, options: Sequence[str]) -> str:
        return options[self.rng.integers(len(options))]

    def _pick_question(self, wordings: Sequence[str]) -> str:
        self._wording = int(self.rng.integers(len(wordings)))
        return wordings[self._wording]

    def _pick_answer(self, wordings: Sequence[str]) -> str:
        if self.style.settled:
            return wordings[self._wording % len(wordings)]
        return self._pick(wordings)

    def _worked(self, say: Callable[..., str], *about: object) -> str:
        return say(*about) if self.style.worked else ""

    def _nearness(self, number: int, region: Region, group: Sequence[Region], first: int) -> str:
        said = self._placed({number: region})
        if not self.style.metres:
            return said + self._worked(worked.nearness, region, group, first)
        return said + self._worked(worked.reckoned, region, group, first, self.style.summary)

    def _legs(self, ends: dict[int, Region]) -> str:
        if self.style.metres:
            return self._placed(ends) + self._worked(worked.legs, *ends.values(), self.style.summary)
        return self._placed(ends) + self._worked(worked.offset, *ends.values())

    def _placed(self, regions: dict[int, Region]) -> str:
        return self._worked(worked.standing if self.style.metres else worked.located, regions)

    def _metres(self, a: Region, b: Region) -> float:
        return round(floor_distance(a.thing, b.thing), self.style.decimals)

    def _asked(
        self,
        category: str,
        prompt: str,
        opening: str,
        conclusion: str,
        value: str | float,
        regions: Sequence[Region],
        about: tuple,
        short: bool = False,
    ) -> Asked:
        if not short or self.rng.random() < PAIR_WITH_IMAGE:
            prompt = f"{IMAGE}\n{prompt}"
        return Asked(category, prompt, opening, conclusion, value, tuple(regions), about)

    def _named(self, number: int, which: str, noun: str) -> str:
        text = self._pick_answer(phrases.NAMED)
        return text.format(region=named(number), which=which, noun=noun, nouns=f"{noun}s")

    def _distance(self, a: str, b: str, metres: float) -> str:
        if metres == 0:
            text = self._pick_answer(phrases.INSIDE_ANSWERS)
        else:
            text = self._pick_answer(phrases.DISTANCE_ANSWERS)
        return text.format(a=a, b=b, A=a[0].upper() + a[1:], metres=f"{metres:.{self.style.decimals}f}")

    def _left_right(self) -> Asked | None:
        kind = "buffer" if self.rng.random() < 0.2 and len(self.buffers) > 1 else "pallet"
        pair = (self.buffers if kind == "buffer" else self.pallets)[:2]
        if len(pair) < 2 or abs(pair[0].u - pair[1].u) < SIDE_MARGIN:
            return None
        noun, side = NOUNS[kind], "left" if pair[0].u < pair[1].u else "right"
        # The order of the pair is random and the side asked about is not looked up, so in every
        # wording both answers are equally likely.
        form = self.rng.integers(3)
        prompt = self._pick_question(phrases.LEFT_OR_RIGHT if form == 0 else phrases.IS_IT_THERE)
        prompt = prompt.format(noun=noun, side=("", "left", "right")[form])
        answer = self._pick_answer(phrases.SIDE_ANSWERS).format(noun=noun, side=side)
        about = ("side", *sorted(region.index for region in pair))
        return self._asked("left_right", prompt, "", answer, side, pair, about, short=True)

    def _distance_of_two(self) -> Asked | None:
        pair = self.pallets[:2]
        if len(pair) < 2:
            return None
        metres = self._metres(*pair)
        prompt = self._pick_question(phrases.DISTANCE_OF_TWO)
        opening = self._legs(dict(enumerate(pair)))
        answer = self._pick_answer(phrases.DISTANCE_OF_TWO_ANSWERS).format(metres=f"{metres:.{self.style.decimals}f}")
        return self._asked(
            "distance",
            prompt,
            opening,
            answer,
            metres,
            pair,
            ("two", *sorted(region.index for region in pair)),
            short=True,
        )

    def _distance_of_extremes(self) -> Asked | None:
        left, right = outermost(self.pallets, "leftmost"), outermost(self.pallets, "rightmost")
        if left is None or right is None:
            return None
        metres = self._metres(self.pallets[left], self.pallets[right])
        prompt = self._pick_question(phrases.DISTANCE_OF_EXTREMES).format(pallets=masks(self.pallets))
        opening = self._worked(worked.marks, len(self.pallets), {left: "leftmost", right: "rightmost"})
        opening += self._pick_answer(("", "From this viewpoint, ", "Looking from this angle, "))
        opening += f"{named(left)} is the leftmost pallet, and {named(right)} is the rightmost pallet. "
        ends = {left: self.pallets[left], right: self.pallets[right]}
        opening += self._legs(ends)
        answer = self._distance(f"the pallet {named(left)}", f"the pallet {named(right)}", metres)
        return self._asked("distance", prompt, opening, answer, metres, self.pallets, ("extremes",))

    def _with_wanted_zero(self, cases: list[tuple]) -> tuple | None:
        """One of the cases (metres, ...), a zero as often as ZERO_SHARE says."""
        zero = self.rng.random() < ZERO_SHARE
        cases = [case for case in cases if (case[0] == 0) == zero]
        return cases[self.rng.integers(len(cases))] if cases else None

    def _distance_to_buffer(self) -> Asked | None:
        """From the leftmost or rightmost pallet to the leftmost, middle or rightmost buffer."""
        cases = []
        for which in ("leftmost", "rightmost"):
            for where in PLACES:
                pallet, buffer = outermost(self.pallets, which), outermost(self.buffers, where)
                if pallet is not None and buffer is not None:
                    metres = self._metres(self.pallets[pallet], self.buffers[buffer])
                    cases.append((metres, which, where, pallet, buffer))
        case = self._with_wanted_zero(cases)
        if case is None:
            return None
        metres, which, where, pallet, buffer = case
        ends = {len(self.buffers) + pallet: self.pallets[pallet], buffer: self.buffers[buffer]}
        offset = self._legs(ends)
        pallet += len(self.buffers)
        prompt = self._pick_question(phrases.DISTANCE_TO_BUFFER).format(
            buffers=masks(self.buffers), pallets=masks(self.pallets), which=which, where=where
        )
        marked = {buffer: where, pallet: which}
        opening = self._worked(worked.marks, len(self.buffers) + len(self.pallets), marked)
        opening += self._named(pallet, which, "pallet") + self._named(buffer, where, "buffer region") + offset
        answer = self._distance(f"the pallet {named(pallet)}", f"the buffer region {named(buffer)}", metres)
        return self._asked(
            "distance",
            prompt,
            opening,
            answer,
            metres,
            [*self.buffers, *self.pallets],
            ("pallet to buffer", which, where),
        )

    def _distance_to_shelf(self) -> Asked | None:
        """From the leftmost or rightmost pallet to a shelf, given alone or as the one on a side."""
        which = self._pick(("leftmost", "rightmost"))
        pallet = outermost(self.pallets, which)
        if pallet is None or not self.shelves:
            return None
        many = len(self.shelves) == 2 and self.rng.random() < 0.5
        side = self._pick(("left", "right"))
        place = outermost(self.shelves, f"{side}most") if many else 0
        if place is None:
            return None
        shelf = self.shelves[place]
        shelves = self.shelves if many else [shelf]
        number = len(self.pallets) + place
        metres = self._metres(self.pallets[pallet], shelf)
        prompt = self._pick_question(phrases.DISTANCE_TO_ONE_SHELF if many else phrases.DISTANCE_TO_SHELF).format(
            pallets=masks(self.pallets), shelves=masks(shelves), which=which, side=side
        )
        marked = {pallet: which} | ({number: f"{side}most"} if many else {})
        opening = self._worked(worked.marks, len(self.pallets) + many * len(shelves), marked)
        opening += self._named(pallet, which, "pallet")
        if many:
            opening += f"The shelf {named(number)} is the shelf on the {side}. "
        ends = {pallet: self.pallets[pallet], number: shelf}
        opening += self._legs(ends)
        answer = self._distance(f"the pallet {named(pallet)}", f"the shelf {named(number)}", metres)
        return self._asked(
            "distance", prompt, opening, answer, metres, [*self.pallets, *shelves], ("shelf", which, shelf.index)
        )

    def _distance_of_transporter(self) -> Asked | None:
        cases = []
        for transporter in self.transporters:
            for where in PLACES:
                buffer = outermost(self.buffers, where)
                if buffer is not None:
                    metres = self._metres(transporter, self.buffers[buffer])
                    cases.append((metres, transporter, where, buffer))
        case = self._with_wanted_zero(cases)
        if case is None:
            return None
        metres, transporter, where, buffer = case
        prompt = self._pick_question(phrases.DISTANCE_OF_TRANSPORTER).format(where=where, buffers=masks(self.buffers))
        buffers_first = prompt.startswith("Among")
        number, own = (buffer, len(self.buffers)) if buffers_first else (buffer + 1, 0)
        regions = [*self.buffers, transporter] if buffers_first else [transporter, *self.buffers]
        first = 0 if buffers_first else 1
        ends = {own: transporter, number: self.buffers[buffer]}
        opening = (
            self._worked(worked.marks, len(self.buffers), {buffer: where}, first)
            + self._named(number, where, "buffer region")
            + self._legs(ends)
        )
        answer = self._distance(f"transporter {named(own)}", f"the buffer region {named(number)}", metres)
        return self._asked(
            "distance", prompt, opening, answer, metres, regions, ("transporter", where, transporter.index)
        )

    def _count(self) -> Asked | None:
        """Pallets in the counted buffer, which is given, or named by its place or by a shelf."""
        target = next((i for i, region in enumerate(self.buffers) if region.thing.number == self.counted), None)
        if target is None or len(self.pallets) < 2:
            return None
        buffer, inside = (
            self.buffers[target],
            [i for i, pallet in enumerate(self.pallets) if is_inside(pallet.thing, self.buffers[target].thing)],
        )
        first, number = len(self.buffers), target  # region numbers of the first pallet and of the buffer
        regions = [*self.buffers, *self.pallets]
        if len(self.buffers) == 1 or self.rng.random() < 0.15:
            place, opening = "", ""
            wording = self._pick_question(phrases.COUNT_IN_ONE)
            first, number, regions = 0, len(self.pallets), [*self.pallets, buffer]
        elif self.rng.random() < 0.25 and len(self.shelves) == 1 and nearest(self.shelves[0], self.buffers) == target:
            place, shelf = "", len(regions)
            wording = self._pick_question(phrases.COUNT_AT_SHELF)
            opening = self._nearness(shelf, self.shelves[0], self.buffers, 0)
            opening += self._pick_answer(phrases.BUFFER_ANSWERS).format(buffer=named(target), shelf=named(shelf))
            opening += " "
            regions.append(self.shelves[0])
        else:
            place = next((where for where in PLACES if outermost(self.buffers, where) == target), "")
            if not place:
                return None
            wording = self._pick_question(phrases.COUNT)
            opening = self._worked(worked.marks, len(self.buffers), {target: place})
            opening += self._named(target, place, "buffer region")
        prompt = wording.format(buffers=masks(self.buffers), pallets=masks(self.pallets), where=place)
        opening += self._placed({number: buffer})
        opening += self._worked(worked.insides, self.pallets, buffer, first)
        count = len(inside)
        listed = " ".join(named(first + i) for i in inside)
        are, pallets = ("is", "pallet") if count == 1 else ("are", "pallets")
        found = (
            self._pick_answer(phrases.FOUND).format(pallets=f"{pallets} {listed} {are}", buffer=named(number))
            if count
            else f"There are no pallets inside the buffer region {named(number)}. "
        )
        total = self._pick_answer(phrases.TOTALS).format(
            are=are, count=NUMBER_WORDS[count], pallets=pallets, buffer=named(number)
        )
        return self._asked("count", prompt, opening, found + total, count, regions, ("count", wording))

    def _closest_to_empty(self) -> tuple[int, int] | None:
        """Indices of the one empty transporter and of the pallet that is clearly closest to it."""
        empty = [i for i, region in enumerate(self.transporters) if not region.thing.carrying]
        if len(empty) != 1:
            return None
        pallet = nearest(self.transporters[empty[0]], self.pallets)
        return None if pallet is None else (empty[0], pallet)

    def _pallet_for_one(self) -> Asked | None:
        found = self._closest_to_empty()
        if found is None:
            return None
        transporter, pallet = found
        prompt = self._pick_question(phrases.PALLET_FOR_ONE).format(pallets=masks(self.pallets))
        opening = self._nearness(len(self.pallets), self.transporters[transporter], self.pallets, 0)
        answer = self._pick_answer(phrases.PALLET_ANSWERS).format(
            pallet=named(pallet), transporter=named(len(self.pallets))
        )
        return self._asked(
            "mcq",
            prompt,
            opening,
            answer,
            str(pallet),
            [*self.pallets, self.transporters[transporter]],
            ("pallet for one",),
        )

    def _pallet_for_empty(self) -> Asked | None:
        found = self._closest_to_empty()
        if found is None or len(self.transporters) < 2:
            return None
        transporter, pallet = found
        groups = {"transporters": masks(self.transporters), "pallets": masks(self.pallets)}
        empty = self.transporters[transporter]
        if self.rng.random() < 0.5:
            wordings, regions = phrases.TRANSPORTERS_FIRST, [*self.transporters, *self.pallets]
            first, first_pallet = 0, len(self.transporters)
        else:
            wordings, regions = phrases.PALLETS_FIRST, [*self.pallets, *self.transporters]
            first, first_pallet = len(self.pallets), 0
        transporter, pallet = transporter + first, pallet + first_pallet
        prompt = self._pick_question(wordings).format(**groups)
        names = {"pallet": named(pallet), "transporter": named(transporter)}
        opening = (
            self._worked(worked.loads, self.transporters, first)
            + self._pick_answer(phrases.EMPTY).format(**names)
            + self._nearness(transporter, empty, self.pallets, first_pallet)
        )
        answer = self._pick_answer(phrases.PALLET_ANSWERS).format(**names)
        return self._asked("mcq", prompt, opening, answer, str(pallet), regions, ("pallet for empty",))

    def _buffer_near(self) -> Asked | None:
        """The buffer closest to a shelf, which is given alone or as the one on a side."""
        if not self.shelves:
            return None
        many = len(self.shelves) == 2 and self.rng.random() < 0.4
        side = self._pick(("left", "right"))
        place = outermost(self.shelves, f"{side}most") if many else 0
        if place is None:
            return None
        shelf = self.shelves[place]
        buffer = nearest(shelf, self.buffers)
        if buffer is None:
            return None
        shelves = self.shelves if many else [shelf]
        number = len(self.buffers) + place
        prompt = self._pick_question(phrases.BUFFER_NEAR_ONE if many else phrases.BUFFER_NEAR).format(
            buffers=masks(self.buffers), side=side, shelves=masks(shelves)
        )
        opening = ""
        if many:
            opening = self._worked(worked.marks, len(shelves), {place: f"{side}most"}, len(self.buffers))
            opening += f"The shelf {named(number)} is the shelf on the {side}. "
        opening += self._nearness(number, shelf, self.buffers, 0)
        answer = self._pick_answer(phrases.BUFFER_ANSWERS).format(buffer=named(buffer), shelf=named(number))
        return self._asked(
            "mcq", prompt, opening, answer, str(buffer), [*self.buffers, *shelves], ("buffer near", shelf.index)
        )

    def _outermost(self) -> Asked | None:
        """The leftmost or rightmost of three pallets or buffers."""
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        which = self._pick(("leftmost", "rightmost"))
        group = (self.buffers if kind == "buffer" else self.pallets)[:3]
        best = outermost(group, which)
        if len(group) < 3 or best is None:
            return None
        prompt = self._pick_question(phrases.OUTERMOST).format(noun=NOUNS[kind], which=which)
        opening = self._worked(worked.marks, len(group), {best: which})
        answer = self._pick_answer(phrases.OUTERMOST_ANSWERS).format(noun=NOUNS[kind], region=named(best), which=which)
        about = ("outermost", kind)
        return self._asked("mcq", prompt, opening, answer, str(best), group, about, short=True)
