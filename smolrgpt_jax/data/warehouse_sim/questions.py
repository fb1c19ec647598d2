"""Questions of the four warehouse categories about one rendered scene, with worked answers in the published grammar.

Answers name regions "[Region i]", the i-th "<mask>" of the question. A question that two objects would answer almost equally
well is not asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from smolrgpt_jax.data.warehouse_sim.view import Region, floor_distance, is_inside

MASK = "<mask>"
SIDE_MARGIN = 0.02  # of the picture's width between two centroids that are compared
DISTANCE_MARGIN = 0.10  # relative, between the nearest and the next
NUMBER_WORDS = ("no", "one", "two", "three", "four", "five", "six")


@dataclass(frozen=True)
class Asked:
    """category, question and answer text, normalised answer, and the regions in the order of the question's masks."""

    category: str
    question: str
    answer: str
    normalized_answer: Any
    regions: tuple[Region, ...]


class Asker:
    """Asks about one scene; all choices come from the generator passed."""

    def __init__(self, regions: list[Region], target_buffer: int, rng: np.random.Generator):
        self.rng = rng
        self.target = target_buffer
        shuffled = [regions[i] for i in rng.permutation(len(regions))]
        self.pallets = [r for r in shuffled if r.kind == "pallet"]
        self.buffers = [r for r in shuffled if r.kind == "buffer"]
        self.shelves = [r for r in shuffled if r.kind == "shelf"]
        self.transporters = [r for r in shuffled if r.kind == "transporter"]

    def pick(self, options: list[str]) -> str:
        return options[self.rng.integers(len(options))]

    def two_pallets(self) -> tuple[Region, Region] | None:
        if len(self.pallets) < 2:
            return None
        i, j = self.rng.choice(len(self.pallets), 2, replace=False)
        return self.pallets[i], self.pallets[j]

    def left_right(self) -> Asked | None:
        pair = self.two_pallets()
        if pair is None or abs(pair[0].u - pair[1].u) < SIDE_MARGIN:
            return None
        a, b = pair
        # The asked side is the true one half of the time, so the question's wording tells nothing.
        side = "left" if a.u < b.u else "right"
        asked = side if self.rng.random() < 0.5 else {"left": "right", "right": "left"}[side]
        question = self.pick(
            [
                f"Is the pallet {MASK} to the {asked} of the pallet {MASK} as seen here?",
                f"From this angle, is the pallet {MASK} on the {asked} side of the pallet {MASK}?",
                f"Does the pallet {MASK} stand {asked} of the pallet {MASK} in this view?",
                f"Is the pallet {MASK} on the left or on the right of the pallet {MASK}?",
                f"On which side of the pallet {MASK} is the pallet {MASK}, left or right?",
            ]
        )
        first, second = (0, 1)
        if question.startswith("On which side"):
            a, b, (first, second) = b, a, (1, 0)
            pair = (a, b)
        answer = self.pick([f"The pallet [Region {first}] is to the {side} of the pallet [Region {second}].", f"The pallet [Region {first}] is on the {side} of the pallet [Region {second}]."])
        return Asked("left_right", question, answer, side, pair)

    def distance_of_two(self) -> Asked | None:
        pair = self.two_pallets()
        if pair is None:
            return None
        metres = round(floor_distance(pair[0].thing, pair[1].thing), 2)
        question = self.pick(
            [
                f"How far is the pallet {MASK} from the pallet {MASK}?",
                f"What is the distance from the pallet {MASK} to the pallet {MASK}?",
                f"Estimate the distance between the pallet {MASK} and the pallet {MASK}.",
                f"How many meters lie between the pallet {MASK} and the pallet {MASK}?",
            ]
        )
        answer = self.pick(
            [f"The pallet [Region 0] is {metres:.2f} meters from the pallet [Region 1].", f"The pallet [Region 0] and the pallet [Region 1] are {metres:.2f} meters apart."]
        )
        return Asked("distance", question, answer, metres, pair)

    def _extreme(self, group: list[Region], side: str) -> int | None:
        """Index of the leftmost, rightmost or middle region of a group, or None if it is not clear which that is."""
        order = sorted(range(len(group)), key=lambda i: group[i].u)
        if side == "middle":
            if len(group) != 3:
                return None
            gaps = (group[order[1]].u - group[order[0]].u, group[order[2]].u - group[order[1]].u)
            return order[1] if min(gaps) >= SIDE_MARGIN else None
        best, second = (order[0], order[1]) if side == "leftmost" else (order[-1], order[-2])
        return best if abs(group[best].u - group[second].u) >= SIDE_MARGIN else None

    def distance_to_buffer(self) -> Asked | None:
        """Between the leftmost or rightmost pallet and the leftmost, middle or rightmost buffer."""
        if len(self.pallets) < 2 or len(self.buffers) < 2:
            return None
        side, where = self.pick(["leftmost", "rightmost"]), self.pick(["leftmost", "rightmost", "middle"])
        p, b = self._extreme(self.pallets, side), self._extreme(self.buffers, where)
        if p is None or b is None:
            return None
        pallet, buffer = len(self.buffers) + p, b
        metres = round(floor_distance(self.pallets[p].thing, self.buffers[b].thing), 2)
        masks_b, masks_p = _masks(self.buffers), _masks(self.pallets)
        question = self.pick(
            [
                f"Given the buffer regions {masks_b} and the pallets {masks_p}, how far is the {side} pallet from the {where} buffer region?",
                f"Among the buffer regions {masks_b} and the pallets {masks_p}, what is the distance between the {side} pallet and the {where} buffer region?",
            ]
        )
        named = f"[Region {pallet}] is the {side} pallet. [Region {buffer}] is the {where} buffer region. "
        if metres == 0:
            answer = named + f"The pallet [Region {pallet}] is inside the buffer region [Region {buffer}], so the distance is 0 meters."
        else:
            answer = named + f"The distance between the pallet [Region {pallet}] and the buffer region [Region {buffer}] is {metres:.2f} meters."
        return Asked("distance", question, answer, metres, (*self.buffers, *self.pallets))

    def distance_to_shelf(self) -> Asked | None:
        if len(self.pallets) < 2 or not self.shelves:
            return None
        side = self.pick(["leftmost", "rightmost"])
        p = self._extreme(self.pallets, side)
        if p is None:
            return None
        shelf = self.shelves[0]
        number = len(self.pallets)
        metres = round(floor_distance(self.pallets[p].thing, shelf.thing), 2)
        question = self.pick(
            [
                f"Among the pallets {_masks(self.pallets)}, how far is the {side} pallet from the shelf {MASK}?",
                f"What is the distance between the {side} pallet of {_masks(self.pallets)} and the shelf {MASK}?",
            ]
        )
        answer = f"[Region {p}] is the {side} pallet. The distance between the pallet [Region {p}] and the shelf [Region {number}] is {metres:.2f} meters."
        return Asked("distance", question, answer, metres, (*self.pallets, shelf))

    def distance_of_transporter(self) -> Asked | None:
        if not self.transporters or len(self.buffers) < 2:
            return None
        where = self.pick(["leftmost", "rightmost", "middle"])
        b = self._extreme(self.buffers, where)
        if b is None:
            return None
        transporter = self.transporters[0]
        metres = round(floor_distance(transporter.thing, self.buffers[b].thing), 2)
        question = f"How far is the transporter {MASK} from the {where} buffer region of {_masks(self.buffers)}?"
        named = f"[Region {b + 1}] is the {where} buffer region. "
        if metres == 0:
            answer = named + f"The transporter [Region 0] is inside the buffer region [Region {b + 1}], so the distance is 0 meters."
        else:
            answer = named + f"The distance between the transporter [Region 0] and the buffer region [Region {b + 1}] is {metres:.2f} meters."
        return Asked("distance", question, answer, metres, (transporter, *self.buffers))

    def count(self) -> Asked | None:
        """Pallets inside one buffer, named by its place or by the shelf it is nearest to."""
        target = next((i for i, r in enumerate(self.buffers) if r.thing.number == self.target), None)
        if target is None or len(self.pallets) < 2:
            return None
        inside = [i for i, r in enumerate(self.pallets) if is_inside(r.thing.position, self.buffers[target].thing)]
        groups, regions = f"the buffer regions {_masks(self.buffers)} and the pallets {_masks(self.pallets)}", [*self.buffers, *self.pallets]
        places = [w for w in ("leftmost", "rightmost", "middle") if len(self.buffers) > 1 and self._extreme(self.buffers, w) == target]
        options = [
            (f"Given {groups}, how many pallets are in the {w} buffer region?", f"[Region {target}] is the {w} buffer region. ", regions) for w in places
        ]
        if len(self.shelves) == 1 and self._nearest_buffer(self.shelves[0]) == target and len(self.buffers) > 1:
            shelf = len(regions)
            options.append(
                (
                    f"Given {groups}, how many pallets are in the buffer region closest to the shelf {MASK}?",
                    f"[Region {target}] is the buffer region closest to the shelf [Region {shelf}]. ",
                    [*regions, self.shelves[0]],
                )
            )
        options.append((f"Given the pallets {_masks(self.pallets)}, how many pallets are in the buffer region {MASK}?", "", [*self.pallets, self.buffers[target]]))
        question, named, regions = options[self.rng.integers(len(options))]
        if self.rng.random() < 0.5:
            question = question.replace("how many pallets are in", "what is the count of pallets in")
        listed = " ".join(f"[Region {regions.index(self.pallets[i])}]" for i in inside)
        count = len(inside)
        noun = "pallet is" if count == 1 else "pallets are"
        where = f"inside the buffer region [Region {regions.index(self.buffers[target])}]"
        found = {0: f"No pallet is {where}. "}.get(count, f"The {'pallet' if count == 1 else 'pallets'} {listed} {'is' if count == 1 else 'are'} {where}. ")
        return Asked("count", question, f"{named}{found}So {NUMBER_WORDS[count]} {noun} in it.", count, tuple(regions))

    def _nearest_buffer(self, shelf: Region) -> int | None:
        return _nearest([floor_distance(b.thing, shelf.thing) for b in self.buffers])

    def mcq_pallet(self) -> Asked | None:
        """The pallet closest to the one empty transporter, which is given alone or to be found among all."""
        empty = [i for i, t in enumerate(self.transporters) if not t.thing.carrying]
        if len(empty) != 1 or len(self.pallets) < 2:
            return None
        transporter = self.transporters[empty[0]]
        best = _nearest([floor_distance(transporter.thing, p.thing) for p in self.pallets])
        if best is None:
            return None
        pallets = _masks(self.pallets)
        if self.rng.random() < 0.5 or len(self.transporters) == 1:
            question = self.pick(
                [f"Which pallet of {pallets} should the transporter {MASK} pick up?", f"Among the pallets {pallets}, which one is the best for the transporter {MASK} to take?"]
            )
            number, pallet, regions = len(self.pallets), best, (*self.pallets, transporter)
            found = ""
        else:
            question = self.pick(
                [
                    f"Given the transporters {_masks(self.transporters)} and the pallets {pallets}, which pallet should an empty transporter pick up?",
                    f"Considering the transporters {_masks(self.transporters)} and the pallets {pallets}, which pallet is the best choice for an empty transporter?",
                ]
            )
            number, pallet, regions = empty[0], len(self.transporters) + best, (*self.transporters, *self.pallets)
            found = f"The transporter [Region {number}] is empty. "
        answer = found + f"The pallet [Region {pallet}] is the closest to the transporter [Region {number}], so it is the best choice."
        return Asked("mcq", question, answer, str(pallet), regions)

    def mcq_buffer(self) -> Asked | None:
        if not self.shelves or len(self.buffers) < 3:
            return None
        best = self._nearest_buffer(self.shelves[0])
        if best is None:
            return None
        question = f"Among the buffer regions {_masks(self.buffers)}, which one is closest to the shelf {MASK}?"
        answer = f"The buffer region [Region {best}] is the closest to the shelf [Region {len(self.buffers)}]."
        return Asked("mcq", question, answer, str(best), (*self.buffers, self.shelves[0]))

    def of_category(self, category: str) -> Asked | None:
        """One question of a category, or None if the scene has none to ask."""
        options = {
            "left_right": [self.left_right],
            "count": [self.count],
            "mcq": [*[self.mcq_pallet] * 5, self.mcq_buffer],
            "distance": [self.distance_of_two, self.distance_of_two, self.distance_to_buffer, self.distance_to_shelf, self.distance_of_transporter],
        }[category]
        return options[self.rng.integers(len(options))]()


def _masks(regions: list[Region]) -> str:
    return " ".join([MASK] * len(regions))


def _nearest(distances: list[float]) -> int | None:
    """Index of the smallest distance, or None if the next one is within the margin."""
    order = np.argsort(distances)
    if len(order) > 1 and distances[order[1]] < distances[order[0]] * (1 + DISTANCE_MARGIN):
        return None
    return int(order[0])
