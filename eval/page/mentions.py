"""Where a question of the page speaks of regions: by their numbers, as in "[2]", or by `<mask>`."""

import re
from collections.abc import Mapping

from smolrgpt_jax.data.records import MASK
from smolrgpt_jax.errors import DataError

_MENTION = re.compile(rf"\[(\d{{1,3}})\]|{MASK}")


def resolve(question: str, regions: int) -> tuple[str, tuple[int, ...]]:
    """The prompt, with a `<mask>` for each mention, and the numbers of the regions mentioned, in the order of the text.

    A `<mask>` of the question stands for the next region without a number in it. Of three regions:

        "Is <mask> left of [0] or [2]?"  ->  "Is <mask> left of <mask> or <mask>?", (1, 0, 2)

    Regions that are not mentioned are not asked about; where the question holds a `<mask>`, all are. Raises DataError where there are
    more regions or fewer than that.
    """
    named = [int(match[1]) for match in _MENTION.finditer(question) if match[1]]
    if unknown := [number for number in named if number >= regions]:
        there_are = "1 region is" if regions == 1 else f"{regions or 'no'} regions are"
        raise DataError(f"the question mentions region {unknown[0]} but {there_are} marked")
    rest, plain = [number for number in range(regions) if number not in named], question.count(MASK)
    if plain and plain != len(rest):
        left = f"{len(rest)} {'other ' if named else ''}region{'s' * (len(rest) != 1)}"
        raise DataError(f"the question holds {plain} {MASK} but there {'is' if len(rest) == 1 else 'are'} {left}")
    following = iter(rest)
    numbers = tuple(int(match[1]) if match[1] else next(following) for match in _MENTION.finditer(question))
    return _MENTION.sub(MASK, question), numbers


def renumbered(question: str, places: Mapping[int, int]) -> str:
    """The question after regions got other numbers, `places[old]`; of those that are gone a `<mask>` remains."""

    def written(match: re.Match[str]) -> str:
        if not match[1]:
            return MASK
        place = places.get(int(match[1]))
        return MASK if place is None else f"[{place}]"

    return _MENTION.sub(written, question)
