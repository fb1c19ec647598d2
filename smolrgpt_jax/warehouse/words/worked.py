"""What a worked answer says of each region before it concludes.

A small model does not learn to choose one region among many from the answer alone: one wrong token in fifty is all it is told.
Saying of every region in turn what the conclusion needs makes each of them a lesson of its own, and the conclusion follows from
text. Regions go by their numbers, in order, so that no name has to be found: "0 in 1 out 2 in. ".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside


def _in_turn(words: Sequence[str], first: int) -> str:
    """ "3 in 4 out. " for the regions from number ``first`` on."""
    return " ".join(f"{first + i} {word}" for i, word in enumerate(words)) + ". "


def marks(count: int, marked: Mapping[int, str], first: int = 0) -> str:
    """Which of so many regions a place in the question means, by their index: "0 no 1 leftmost 2 no. " for {1: "leftmost"}."""
    return _in_turn([marked.get(i, "no") for i in range(count)], first)


def coarse_place(region: Region) -> str:
    """Where its mask's centroid is, in tenths of the picture's width and height: "(4, 6)"."""
    return f"({min(int(10 * region.u), 9)}, {min(int(10 * region.v), 9)})"


def located(regions: Mapping[int, Region]) -> str:
    """Where regions are that the rest is about, by number: "4 at (3, 5) 1 at (7, 2). ".

    What comes after compares with them. To say where they are, their features have to be looked up by number; said right before,
    they are at hand.
    """
    return " ".join(f"{number} at {coarse_place(region)}" for number, region in regions.items()) + ". "


def _stands(region: Region) -> tuple[int, int]:
    """Where it is said to stand: whole metres ahead of the camera, and to its right (negative to its left)."""
    return round(region.ahead), round(region.right)


def _in_metres(region: Region) -> str:
    ahead, right = _stands(region)
    return f"{ahead} ahead {abs(right)} {'left' if right < 0 else 'right'}"


def _stated_legs(a: Region, b: Region) -> tuple[str, int, int]:
    """Metres across and along the camera's heading, as they follow from what is said, so that all of it can be learned from text.

    Before them a word, whether the two are on the same side of the camera, "with" each other, or "apart": what is across is the
    difference of what they are aside or the sum. To find that out and to reckon in one step is not learned reliably.
    """
    (a_ahead, a_right), (b_ahead, b_right) = _stands(a), _stands(b)
    side = "with" if (a_right < 0) == (b_right < 0) else "apart"
    return side, abs(a_right - b_right), abs(a_ahead - b_ahead)


def _stated_distance(a: Region, b: Region) -> float:
    """Their distance in metres, as it follows from the legs that are said."""
    _, across, along = _stated_legs(a, b)
    return math.hypot(across, along)


def _list_off(a: Region, b: Region) -> int:
    """That distance as lists have it: whole metres, one digit."""
    return min(round(_stated_distance(a, b)), 9)


def standing(regions: Mapping[int, Region]) -> str:
    """Where regions are, as ``located`` says it, but on the floor: "4 stands 5 ahead 2 left. "."""
    return "".join(f"{number} stands {_in_metres(region)}. " for number, region in regions.items())


def insides(pallets: Sequence[Region], buffer: Region, first: int) -> str:
    """Which of them stand inside the buffer: "3 in 4 out. "."""
    return _in_turn(["in" if is_inside(p.thing, buffer.thing) else "out" for p in pallets], first)


def loads(transporters: Sequence[Region], first: int) -> str:
    """Which of them carry something: "0 loaded 1 empty. "."""
    return _in_turn(["loaded" if t.thing.carrying else "empty" for t in transporters], first)


def nearness(region: Region, group: Sequence[Region], first: int) -> str:
    """How far each of a group is from a region, in whole metres, 9 at most: "0 off 4 1 off 7. ".

    Tenths would be guesses of a small model, and what it learns from would be lost among them.
    """
    return _in_turn([f"off {min(round(floor_distance(region.thing, o.thing)), 9)}" for o in group], first)


def reckoned(region: Region, group: Sequence[Region], first: int, summary: bool = False) -> str:
    """How far each of a group is from a region that was placed on the floor, step by step.

    "0 at 5 ahead 2 left apart 3 across 4 along off 5. "; all but the place follows from text, whole metres, 9 at most off. summary:
    after each the nearest so far and how far off it is, so that the last of them is the nearest of all: "0 at ... off 5 nearest 0 off
    5 1 at ... off 3 nearest 1 off 3. ". To look through all of them at the end is much harder.
    """
    words, best = [], 0
    for i, other in enumerate(group):
        side, across, along = _stated_legs(region, other)
        word = f"at {_in_metres(other)} {side} {across} across {along} along off {_list_off(region, other)}"
        if summary:
            if _stated_distance(region, other) < _stated_distance(region, group[best]):
                best = i
            word += f" nearest {first + best} off {_list_off(region, group[best])}"
        words.append(word)
    return _in_turn(words, first)


def legs(a: Region, b: Region, summary: bool) -> str:
    """The two legs of their distance after both were placed on the floor: "with 1 across 3 along. ".

    Nothing for a thing inside a buffer, whose distance is 0. summary: with the distance that follows from them, in whole metres: "with
    1 across 3 along off 3. ".
    """
    if floor_distance(a.thing, b.thing) == 0:
        return ""
    side, across, along = _stated_legs(a, b)
    off = f" off {round(_stated_distance(a, b))}" if summary else ""
    return f"{side} {across} across {along} along{off}. "


def offset(a: Region, b: Region, decimals: int = 0) -> str:
    """The two legs of their distance, in metres across and along the camera's heading: "1 across 3 along. ".

    Nothing for a thing inside a buffer, whose distance is 0.
    """
    if floor_distance(a.thing, b.thing) == 0:
        return ""
    across, along = abs(a.right - b.right), abs(a.ahead - b.ahead)
    return f"{across:.{decimals}f} across {along:.{decimals}f} along. "
