"""Several processes answer together: each a share of the pictures, all know all answers in the end."""

from __future__ import annotations

import json
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import multihost_utils

from smolrgpt_jax.data.records import Picture


def consecutive_share(pictures: Sequence[Picture]) -> Sequence[Picture]:
    """This process's part of the pictures, with about as many questions as every other's."""
    if jax.process_count() == 1:
        return pictures
    ends = np.cumsum([len(picture.questions) for picture in pictures])
    index, count = jax.process_index(), jax.process_count()
    total = int(ends[-1]) if len(ends) else 0
    first, last = (np.searchsorted(ends, part * total / count, side="right") for part in (index, index + 1))
    return pictures[first : last if index + 1 < count else None]


def gather_answers(answers: dict[str, str]) -> dict[str, str]:
    """The answers of all processes, on every one of them."""
    if jax.process_count() == 1:
        return answers
    own = np.frombuffer(json.dumps(answers).encode(), np.uint8)
    sizes = np.ravel(multihost_utils.process_allgather(np.array([own.size], np.int32)))
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: own.size] = own
    everyone = multihost_utils.process_allgather(padded)
    merged: dict[str, str] = {}
    for text, size in zip(everyone, sizes):
        merged |= json.loads(text[:size].tobytes())
    return merged
