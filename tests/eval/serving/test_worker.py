"""What is kept of pictures."""

from __future__ import annotations

import numpy as np

from eval.serving.worker import KeptPictures
from smolrgpt_jax.generation.online import Prefix

PREFIX = Prefix((np.zeros(10, np.uint8), np.zeros(10, np.uint8)), (np.zeros(5, np.uint8),))


def test_the_pictures_used_last_are_kept_for_a_while():
    now = [0.0]
    kept = KeptPictures(3 * PREFIX.bytes, 60.0, lambda: now[0])
    for key in (b"a", b"b", b"c"):
        kept.put((key, None), PREFIX)
    assert kept.get((b"a", None)) is PREFIX
    kept.put((b"d", None), PREFIX)
    assert kept.get((b"b", None)) is None and len(kept) == 3 and kept.bytes == 3 * PREFIX.bytes
    now[0] = 50.0
    assert kept.get((b"c", None)) is PREFIX
    now[0] = 70.0
    kept.expire()
    assert len(kept) == 1 and kept.get((b"c", None)) is PREFIX and kept.get((b"c", b"depth")) is None


def test_a_picture_larger_than_all_memory_is_not_kept():
    kept = KeptPictures(PREFIX.bytes - 1, 60.0)
    kept.put((b"a", None), PREFIX)
    assert len(kept) == 0 and kept.bytes == 0
