"""What a worked answer says of each region before it concludes.

A small model does not learn to choose one region among many from the answer alone: one wrong token in fifty is all it is told.
Saying of every region in turn what the conclusion needs makes each of them a lesson of its own, and the conclusion follows from
text. Regions go by their numbers, in order, so that no name has to be found: "0 in 1 out 2 in. ".
"""

import math
from collections.abc import Callable, Mapping, Sequence

from smolrgpt_jax.warehouse.picture.view import Region, floor_distance, is_inside


def in_turn(group: Sequence[Region], first: int, word: Callable[[Region], str]) -> str:
    """A word about each of the regions that are numbered from `first` on: "3 in 4 out. "."""
    return " ".join(f"{first + i} {word(region)}" for i, region in enumerate(group)) + ". "


def marks(group: Sequence[Region], first: int, marked: Mapping[Region, str]) -> str:
    """Which of the regions a place in the question means: "0 no 1 leftmost 2 no. "."""
    return in_turn(group, first, lambda region: marked.get(region, "no"))


def insides(pallets: Sequence[Region], first: int, buffer: Region) -> str:
    """Which of them stand inside the buffer: "3 in 4 out. "."""
    return in_turn(pallets, first, lambda pallet: "in" if is_inside(pallet, buffer) else "out")


def loads(transporters: Sequence[Region], first: int) -> str:
    """Which of them carry something: "0 loaded 1 empty. "."""
    return in_turn(transporters, first, lambda region: "loaded" if region.thing.carrying else "empty")


def nearness(group: Sequence[Region], first: int, region: Region) -> str:
    """How far each of a group is from a region, in whole metres, 9 at most: "0 off 4 1 off 7. ".

    Tenths would be guesses of a small model, and what it learns from would be lost among them.
    """
    return in_turn(group, first, lambda other: f"off {min(round(floor_distance(region, other)), 9)}")


def coarse_place(region: Region) -> str:
    """Where its mask's centroid is, in tenths of the picture's width and height: "(4, 6)"."""
    return f"({min(int(10 * region.u), 9)}, {min(int(10 * region.v), 9)})"


def located(regions: Mapping[int, Region]) -> str:
    """Where regions are that the rest is about, by number: "4 at (3, 5) 1 at (7, 2). ".

    What comes after compares with them. To say where they are, their features have to be looked up by number; said right before,
    they are at hand.
    """
    return " ".join(f"{number} at {coarse_place(region)}" for number, region in regions.items()) + ". "


def standing(regions: Mapping[int, Region]) -> str:
    """Where regions are, as `located` says it, but on the floor: "4 stands 5 ahead 2 left. "."""
    return "".join(f"{number} stands {_in_metres(region)}. " for number, region in regions.items())


def _in_metres(region: Region) -> str:
    right = round(region.right)
    return f"{round(region.ahead)} ahead {abs(right)} {'left' if right < 0 else 'right'}"


def _stated(a: Region, b: Region) -> tuple[str, float]:
    """The legs of their distance in whole metres, as they follow from the places that are said, and that distance.

    Before the legs a word, whether the two are on the same side of the camera, "with" each other, or "apart": what is across is the
    difference of what they are aside or the sum. To find that out and to reckon in one step is not learned reliably.
    """
    a_right, b_right = round(a.right), round(b.right)
    across, along = abs(a_right - b_right), abs(round(a.ahead) - round(b.ahead))
    side = "with" if (a_right < 0) == (b_right < 0) else "apart"
    return f"{side} {across} across {along} along", math.hypot(across, along)


def reckoned(group: Sequence[Region], first: int, region: Region, summary: bool) -> str:
    """How far each of a group is from a region that was placed on the floor, step by step.

    "0 at 5 ahead 2 left apart 3 across 4 along off 5. "; all but the place follows from text, whole metres, 9 at most off. summary:
    after each the nearest so far and how far off it is, so that the last of them is the nearest of all: "0 at ... off 5 nearest 0 off
    5 1 at ... off 3 nearest 1 off 3. ". To look through all of them at the end is much harder.
    """
    best, shortest = None, math.inf

    def word(other: Region) -> str:
        nonlocal best, shortest
        legs, metres = _stated(region, other)
        if metres < shortest:
            best, shortest = other, metres
        nearest = f" nearest {first + group.index(best)} off {min(round(shortest), 9)}" if summary else ""
        return f"at {_in_metres(other)} {legs} off {min(round(metres), 9)}{nearest}"

    return in_turn(group, first, word)


def legs(a: Region, b: Region, summary: bool) -> str:
    """The two legs of their distance after both were placed on the floor: "with 1 across 3 along. ".

    Nothing for a thing inside a buffer, whose distance is 0. summary: with the distance that follows from them, in whole metres: "with
    1 across 3 along off 3. ".
    """
    if floor_distance(a, b) == 0:
        return ""
    said, metres = _stated(a, b)
    return f"{said} off {round(metres)}. " if summary else f"{said}. "


def offset(a: Region, b: Region, decimals: int = 0) -> str:
    """The two legs of their distance, in metres across and along the camera's heading: "1 across 3 along. ".

    Nothing for a thing inside a buffer, whose distance is 0.
    """
    if floor_distance(a, b) == 0:
        return ""
    return f"{abs(a.right - b.right):.{decimals}f} across {abs(a.ahead - b.ahead):.{decimals}f} along. "
