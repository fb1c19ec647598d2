"""The benchmark of tightened boxes: its measure, and its table."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import tighten
from smolrgpt_jax.data.masks import decode, encode


def test_boxes_and_overlap_of_a_known_mask():
    mask = np.zeros((6, 8), np.uint8)
    mask[1, 2] = mask[3, 2:5] = 1
    box = decode(tighten.least_box(encode(mask)))
    assert box.sum() == 9 and box[1:4, 2:5].all()
    assert tighten.overlap(box, mask) == 4 / 9 and tighten.overlap(mask, mask) == 1


def test_the_table_has_every_kind(tmp_path):
    pytest.importorskip("cv2")
    tighten.main([*"--regions 12 --width 160 --height 90 --out".split(), str(tmp_path / "table.md")])
    head, _, everything, *kinds = (tmp_path / "table.md").read_text().splitlines()
    assert head.startswith("| regions | number | boxes | tightened") and everything.startswith("| all | 12 | 0.")
    assert sum(int(row.split(" | ")[1]) for row in kinds) == 12
