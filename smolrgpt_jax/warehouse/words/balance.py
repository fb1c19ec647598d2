"""Which of the questions that scenes give end up in a split."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TypeVar

from smolrgpt_jax.warehouse.words.questions import Asked

T = TypeVar("T")


def interleaved(items: Sequence[T], classes: Sequence[object]) -> list[T]:
    """Orders items so that classes take turns; within a class the order stays.

    Any beginning of the result holds about as many items of each class as there are:

        items a1 a2 a3 b1, classes A A A B  ->  a1 b1 a2 a3
    """
    seen: dict[object, Iterator[int]] = defaultdict(itertools.count)
    turns = [next(seen[label]) for label in classes]
    return [items[place] for place in sorted(range(len(items)), key=turns.__getitem__)]


def choose(scenes: Sequence[Sequence[Asked]], shares: dict[str, float], most: int) -> list[list[Asked]]:
    """Chooses questions of each scene, in their order, so that categories have their shares and answers are balanced.

    Sides and counts take turns, so that no constant answer does well; questions are taken from as many scenes as possible.

    Args:
      scenes: the questions of each scene, in random order within a category.
      shares: of each category, adding up to 1.
      most: the number of questions wanted; fewer are chosen where a category runs out.
    """
    pools: dict[str, list[tuple[int, int]]] = {}  # category -> (scene, question)
    for category in shares:
        every = [(scene, i) for scene, own in enumerate(scenes) for i, q in enumerate(own) if q.category == category]
        pool = interleaved(every, [scene for scene, _ in every])
        if category in ("left_right", "count"):
            pool = interleaved(pool, [scenes[scene][i].normalized_answer for scene, i in pool])
        pools[category] = pool
    total = min([most, *(len(pools[category]) / share for category, share in shares.items() if share)])
    taken = {place for category, share in shares.items() for place in pools[category][: int(total * share + 1e-6)]}
    return [[q for i, q in enumerate(own) if (scene, i) in taken] for scene, own in enumerate(scenes)]
