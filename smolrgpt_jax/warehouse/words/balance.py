"""Which of the questions that scenes give end up in a split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

from smolrgpt_jax.warehouse.words.questions import Asked

T = TypeVar("T")


def interleaved(items: Sequence[T], classes: Sequence[object]) -> list[T]:
    """Orders items so that classes take turns; within a class the order stays.

    Any beginning of the result holds about as many items of each class as there are:

        items a1 a2 a3 b1, classes A A A B  ->  a1 b1 a2 a3
    """
    seen: Counter = Counter()
    turns = []
    for place, label in enumerate(classes):
        turns.append((seen[label], place))
        seen[label] += 1
    return [items[place] for _, place in sorted(turns)]


def choose(scenes: Sequence[Sequence[Asked]], shares: dict[str, float], most: int) -> list[list[Asked]]:
    """Chooses questions so that categories have their shares and answers are balanced.

    Sides and counts take turns, so that no constant answer does well; questions are taken from as
    many scenes as possible.

    Args:
      scenes: the questions of each scene, in random order within a category.
      shares: of each category, adding up to 1.
      most: the number of questions wanted; fewer are chosen where a category runs out.

    Returns:
      For each scene its chosen questions, in their order.
    """
    pools: dict[str, list[tuple[int, int]]] = {}  # category -> (scene, question)
    for category in shares:
        own = [[i for i, question in enumerate(questions) if question.category == category] for questions in scenes]
        ranked = sorted((rank, scene, i) for scene, places in enumerate(own) for rank, i in enumerate(places))
        pool = [(scene, i) for _, scene, i in ranked]
        if category in ("left_right", "count"):
            pool = interleaved(pool, [scenes[scene][i].normalized_answer for scene, i in pool])
        pools[category] = pool
    total = min([most, *(len(pools[category]) / share for category, share in shares.items() if share)])
    taken = {place for category, share in shares.items() for place in pools[category][: int(total * share + 1e-6)]}
    return [
        [question for i, question in enumerate(questions) if (scene, i) in taken]
        for scene, questions in enumerate(scenes)
    ]
