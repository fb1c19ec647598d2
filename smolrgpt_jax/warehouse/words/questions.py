"""Questions of the four warehouse categories about one scene, with worked answers; none that has two almost equally good answers.

Answers name regions "[Region i]", the i-th "<mask>" of the question. Masks of one kind come in random order, so a number tells nothing.
"""

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from smolrgpt_jax.data.records import IMAGE, MASK
from smolrgpt_jax.warehouse.parameters import AnswerStyle
from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside
from smolrgpt_jax.warehouse.scene.objects import Rng, pick
from smolrgpt_jax.warehouse.words import worked
from smolrgpt_jax.warehouse.words.wordings import FORMS, FURTHER, GROUPS, WORDINGS, alike

SIDE_MARGIN = 0.02  # of the picture's width, between two centroids that are compared
DISTANCE_MARGIN = 0.10  # relative, between the nearest and the next
ZERO_SHARE = 0.18  # of the draws of a distance to a buffer; about 10 % are 0, as not all scenes have one
PAIR_WITH_IMAGE = 0.2  # share of short questions that begin with "<image>", as published; long ones all do
NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ENDS = ("leftmost", "rightmost")
PLACES = (*ENDS, "middle")
NOUNS = {"pallet": "pallet", "buffer": "buffer region", "transporter": "transporter", "shelf": "shelf"}
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Asked:
    category: str  # one of records.WAREHOUSE_CATEGORIES
    prompt: str  # with one "<mask>" per region, and "<image>" in front or not
    opening: str  # what the answer says before it concludes: workings, and which region a place in the question means
    conclusion: str  # the rest of it
    # "left" or "right"; int (count); str of a region number (mcq); float (distance)
    normalized_answer: str | int | float
    regions: tuple[Region, ...]  # in the order of the masks
    about: Hashable  # what is asked, apart from its wording; two questions of a category and scene never share it

    @property
    def answer(self) -> str:
        """Free text."""
        return self.opening + self.conclusion


class Unclear(Exception):
    """The scene holds too little for a question, or two answers to it would be almost equally good."""


def clear(found: T | None) -> T:
    """What was found; raises Unclear if that is nothing."""
    if not found:
        raise Unclear
    return found


def masks(regions: Sequence[Region]) -> str:
    """One "<mask>" per region."""
    return " ".join([MASK] * len(regions))


def named(number: int) -> str:
    return f"[Region {number}]"


def side_of(a: Region, b: Region) -> str:
    """Whether `a` is to the "left" or "right" of `b`; raises Unclear."""
    if abs(a.u - b.u) < SIDE_MARGIN:
        raise Unclear
    return "left" if a.u < b.u else "right"


def side_form(rng: Rng) -> tuple[str, str]:
    """Draws how the side of one of two regions is asked for: the side that is named, if one is, and which wordings.

    It is not looked up, so in every wording both answers are equally likely.
    """
    side = ("", "left", "right")[rng.integers(3)]
    return side, "is_it_there" if side else "left_or_right"


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
    """A question under way, whose wording is drawn, and what its answer has said so far.

    regions: asked about, in the order of the masks; form: a key of WORDINGS; places: what its wordings leave open, apart from masks.
    """

    def __init__(self, asker: "Asker", form: str, regions: Sequence[Region], **places: str):
        self.rng, self.style, self.regions, self.opening = asker.rng, asker.style, list(regions), ""
        self.drawn = int(self.rng.integers(len(WORDINGS[form])))
        self.wording = WORDINGS[form][self.drawn]
        asked = asker.reworded(form, self.wording)
        self.prompt = asked.format(**places, **{group: masks(getattr(asker, group)) for group in GROUPS})

    def number(self, region: Region) -> int:
        return self.regions.index(region)

    def name(self, region: Region) -> str:
        return named(self.number(region))

    def worded(self, form: str, **places: str | Region) -> str:
        """A sentence of the answer, in a wording that is settled by the question's or drawn."""
        wordings = WORDINGS[form]
        text = wordings[self.drawn % len(wordings)] if self.style.settled else pick(self.rng, wordings)
        return text.format(**{k: self.name(v) if isinstance(v, Region) else v for k, v in places.items()})

    def say(self, form: str, **places: str | Region) -> None:
        """Goes on with the answer before its conclusion."""
        self.opening += self.worded(form, **places)

    def introduce(self, region: Region, which: str) -> None:
        """Says which region a place in the question means."""
        noun = NOUNS[region.kind]
        self.say("place_named", region=region, which=which, noun=noun, nouns=f"{noun}s")

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

    def distance(self, a: Region, b: Region, about: Hashable, form: str = "", with_image: float = 1.0) -> Asked:
        """Concludes with the distance of two regions, after its legs where the answer is worked."""
        self.place(a, b)
        if self.style.worked:
            self.opening += worked.legs(a, b, self.style.summary) if self.style.metres else worked.offset(a, b)
        metres = round(floor_distance(a, b), self.style.decimals)
        form = form or ("distance_answers" if metres else "inside_answers")
        one, other = (f"{'' if r.kind == 'transporter' else 'the '}{NOUNS[r.kind]} {self.name(r)}" for r in (a, b))
        text = self.worded(form, a=one, b=other, A=one[0].upper() + one[1:], metres=f"{metres:.{self.style.decimals}f}")
        return self.asked("distance", text, metres, about, with_image)

    def asked(
        self, category: str, conclusion: str, value: str | float, about: Hashable, with_image: float = 1.0
    ) -> Asked:
        """The question with its answer; with_image: share of such questions that begin with "<image>"."""
        prompt = f"{IMAGE}\n{self.prompt}" if with_image == 1 or self.rng.random() < with_image else self.prompt
        return Asked(category, prompt, self.opening, conclusion, value, tuple(self.regions), about)

    def chosen(self, region: Region, conclusion: str, about: Hashable, with_image: float = 1.0) -> Asked:
        """Concludes with the choice of a region."""
        return self.asked("mcq", conclusion, str(self.number(region)), about, with_image)


class Asker:
    """Draws questions about what is seen of one scene; all choices come from the generator. A function for every form in FORMS.

    counted: number of the buffer that counting may ask about, 0 for none; further: share of questions in further wordings, which
    are drawn with a generator of their own, so that nothing else changes.
    """

    def __init__(
        self,
        regions: Sequence[Region],
        counted: int,
        rng: Rng,
        style: AnswerStyle = AnswerStyle(),
        further: float = 0.0,
    ):
        self.regions, self.counted, self.rng, self.style, self.further = regions, counted, rng, style, further
        # Of a copy: others spawn from the generator too.
        self.words_rng = copy.deepcopy(rng).spawn(1)[0]
        self._shuffle()

    def ask(self, category: str, most: int) -> list[Asked]:
        """Up to `most` different questions of one category, in random order of their forms."""
        forms, weights = zip(*FORMS[category].items())
        asked: dict[Hashable, Asked] = {}
        for _ in range(6 * most):
            if len(asked) == most:
                break
            self._shuffle()
            with contextlib.suppress(Unclear):
                question = getattr(self, f"_{forms[self.rng.choice(len(forms), p=weights)]}")()
                asked.setdefault(question.about, question)
        return list(asked.values())

    def reworded(self, form: str, wording: str) -> str:
        """The wording of a question or, for the share of them, a further one with the same masks in the same order."""
        if self.further and self.words_rng.random() < self.further:
            return pick(self.words_rng, alike(wording, FURTHER[form]))
        return wording

    def _shuffle(self) -> None:
        order = [self.regions[i] for i in self.rng.permutation(len(self.regions))]
        self.pallets, self.buffers, self.shelves, self.transporters = (
            [region for region in order if region.kind == kind] for kind in ("pallet", "buffer", "shelf", "transporter")
        )

    def _left_right(self) -> Asked:
        kind = "buffer" if self.rng.random() < 0.2 and len(self.buffers) > 1 else "pallet"
        pair = _first(2, self.buffers if kind == "buffer" else self.pallets)
        answer = side_of(*pair)
        side, form = side_form(self.rng)
        draft = Draft(self, form, pair, noun=NOUNS[kind], side=side)
        text = draft.worded("side_answers", noun=NOUNS[kind], side=answer)
        return draft.asked("left_right", text, answer, frozenset(pair), PAIR_WITH_IMAGE)

    def _distance_of_two(self) -> Asked:
        one, other = pair = _first(2, self.pallets)
        draft = Draft(self, "distance_of_two", pair)
        return draft.distance(one, other, frozenset(pair), "distance_of_two_answers", PAIR_WITH_IMAGE)

    def _distance_of_extremes(self) -> Asked:
        left, right = (clear(outermost(self.pallets, which)) for which in ENDS)
        draft = Draft(self, "distance_of_extremes", self.pallets)
        draft.work(worked.marks, self.pallets, {left: "leftmost", right: "rightmost"})
        draft.say("extremes_named", left=left, right=right)
        return draft.distance(left, right, "extremes")

    def _distance_to_buffer(self) -> Asked:
        """From the leftmost or rightmost pallet to the leftmost, middle or rightmost buffer."""
        pallets, buffers = placed(self.pallets, ENDS), placed(self.buffers)
        cases = [(p, b, which, where) for which, p in pallets.items() for where, b in buffers.items()]
        pallet, buffer, which, where = self._with_wanted_zero(cases)
        regions = [*self.buffers, *self.pallets]
        draft = Draft(self, "distance_to_buffer", regions, which=which, where=where)
        draft.work(worked.marks, regions, {buffer: where, pallet: which})
        draft.introduce(pallet, which)
        draft.introduce(buffer, where)
        return draft.distance(pallet, buffer, ("pallet to buffer", which, where))

    def _distance_of_transporter(self) -> Asked:
        buffers = placed(self.buffers)
        cases = [(own, b, where) for own in self.transporters for where, b in buffers.items()]
        transporter, buffer, where = self._with_wanted_zero(cases)
        draft = Draft(self, "distance_of_transporter", [transporter, *self.buffers], where=where)
        if draft.wording.startswith("Among"):  # the buffers first
            draft.regions = [*self.buffers, transporter]
        draft.work(worked.marks, self.buffers, {buffer: where})
        draft.introduce(buffer, where)
        return draft.distance(transporter, buffer, ("transporter", where, transporter.index))

    def _with_wanted_zero(self, cases: list[tuple[Any, ...]]) -> tuple[Any, ...]:
        """One of the cases (two regions, ...), a distance of zero as often as ZERO_SHARE says."""
        zero = self.rng.random() < ZERO_SHARE
        cases = [case for case in cases if (round(floor_distance(*case[:2]), self.style.decimals) == 0) == zero]
        return pick(self.rng, clear(cases))

    def _distance_to_shelf(self) -> Asked:
        """From the leftmost or rightmost pallet to a shelf, given alone or as the one on a side."""
        which = pick(self.rng, ENDS)
        pallet = clear(outermost(self.pallets, which))
        shelf, shelves, side = self._some_shelf(0.5)
        form = "distance_to_one_shelf" if side else "distance_to_shelf"
        draft = Draft(self, form, [*self.pallets, *shelves], which=which, side=side)
        draft.work(worked.marks, draft.regions if side else self.pallets, {pallet: which, shelf: f"{side}most"})
        draft.introduce(pallet, which)
        if side:
            draft.say("shelf_named", shelf=shelf, side=side)
        return draft.distance(pallet, shelf, ("shelf", which, shelf.index))

    def _some_shelf(self, by_side: float) -> tuple[Region, list[Region], str]:
        """A shelf, those it is among, and its side; alone and without a side but for a share of the scenes with two."""
        _first(1, self.shelves)
        many = len(self.shelves) == 2 and self.rng.random() < by_side
        side = pick(self.rng, ("left", "right"))
        if many:
            return clear(outermost(self.shelves, f"{side}most")), self.shelves, side
        return self.shelves[0], self.shelves[:1], ""

    def _count(self) -> Asked:
        """Pallets in the counted buffer, which is given, or named by its place or by a shelf."""
        buffer: Region = clear(next((region for region in self.buffers if region.thing.number == self.counted), None))
        _first(2, self.pallets)
        regions, shelf = [*self.buffers, *self.pallets], self.shelves[0] if len(self.shelves) == 1 else None
        if len(self.buffers) == 1 or self.rng.random() < 0.15:
            draft = Draft(self, "count_in_one", [*self.pallets, buffer])
        elif self.rng.random() < 0.25 and shelf is not None and nearest(shelf, self.buffers) is buffer:
            draft = Draft(self, "count_at_shelf", [*regions, shelf])
            draft.compare(shelf, self.buffers)
            draft.say("buffer_answers", buffer=buffer, shelf=shelf)
            draft.opening += " "
        else:
            place = clear(next((where for where, region in placed(self.buffers).items() if region is buffer), None))
            draft = Draft(self, "count", regions, where=place)
            draft.work(worked.marks, self.buffers, {buffer: place})
            draft.introduce(buffer, place)
        draft.place(buffer)
        draft.work(worked.insides, self.pallets, buffer)
        inside = [draft.name(pallet) for pallet in self.pallets if is_inside(pallet, buffer)]
        are, pallets = ("is", "pallet") if len(inside) == 1 else ("are", "pallets")
        count = NUMBER_WORDS[len(inside)]
        worded = functools.partial(draft.worded, are=are, pallets=pallets, buffer=buffer, count=count)
        text = worded("found" if inside else "none_found", listed=" ".join(inside)) + worded("totals")
        return draft.asked("count", text, len(inside), ("count", draft.wording))

    def _closest_to_empty(self) -> tuple[Region, Region]:
        """The one empty transporter and the pallet that is clearly closest to it."""
        (empty,) = _first(1, [region for region in self.transporters if not region.thing.carrying])
        return empty, clear(nearest(empty, self.pallets))

    def _pallet_for_one(self) -> Asked:
        transporter, pallet = self._closest_to_empty()
        draft = Draft(self, "pallet_for_one", [*self.pallets, transporter])
        return self._best_pallet(draft, transporter, pallet, "pallet for one")

    def _pallet_for_empty(self) -> Asked:
        transporter, pallet = self._closest_to_empty()
        _first(2, self.transporters)
        form, regions = "pallets_first", [*self.pallets, *self.transporters]
        if self.rng.random() < 0.5:
            form, regions = "transporters_first", [*self.transporters, *self.pallets]
        draft = Draft(self, form, regions)
        draft.work(worked.loads, self.transporters)
        draft.say("empty", transporter=transporter)
        return self._best_pallet(draft, transporter, pallet, "pallet for empty")

    def _best_pallet(self, draft: Draft, transporter: Region, pallet: Region, about: Hashable) -> Asked:
        draft.compare(transporter, self.pallets)
        return draft.chosen(pallet, draft.worded("pallet_answers", pallet=pallet, transporter=transporter), about)

    def _buffer_near(self) -> Asked:
        """The buffer closest to a shelf, which is given alone or as the one on a side."""
        shelf, shelves, side = self._some_shelf(0.4)
        buffer = clear(nearest(shelf, self.buffers))
        draft = Draft(self, "buffer_near_one" if side else "buffer_near", [*self.buffers, *shelves], side=side)
        if side:
            draft.work(worked.marks, shelves, {shelf: f"{side}most"})
            draft.say("shelf_named", shelf=shelf, side=side)
        draft.compare(shelf, self.buffers)
        text = draft.worded("buffer_answers", buffer=buffer, shelf=shelf)
        return draft.chosen(buffer, text, ("buffer near", shelf.index))

    def _outermost(self) -> Asked:
        kind = "buffer" if self.rng.random() < 0.2 else "pallet"
        which = pick(self.rng, ENDS)
        group = _first(3, self.buffers if kind == "buffer" else self.pallets)
        best = clear(outermost(group, which))
        draft = Draft(self, "outermost", group, noun=NOUNS[kind], which=which)
        draft.work(worked.marks, group, {best: which})
        text = draft.worded("outermost_answers", noun=NOUNS[kind], region=best, which=which)
        return draft.chosen(best, text, ("outermost", kind), PAIR_WITH_IMAGE)


def _first(number: int, group: list[Region]) -> list[Region]:
    if len(group) < number:
        raise Unclear
    return group[:number]
