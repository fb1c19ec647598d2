"""Tightened boxes: what they hold, and when the box stays."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from eval.assist.tightened import least_box, tighten
from smolrgpt_jax.data.masks import box_mask, decode, encode


@pytest.fixture
def disc():
    """A red disc with some noise on a grey ground of 90x120 pixels, its mask and its box."""
    pytest.importorskip("cv2")
    rows, columns = np.mgrid[:90, :120]
    mask = (rows - 40) ** 2 + (columns - 70) ** 2 < 20**2
    picture = np.where(mask[..., None], (200, 60, 50), (110, 115, 120))
    noise = np.random.default_rng(0).normal(0, 6, (90, 120, 3))
    return (picture + noise).clip(0, 255).astype(np.uint8), mask, encode(box_mask((50, 20, 91, 61), 90, 120))


def test_a_box_becomes_the_disc_in_it(disc):
    picture, mask, box = disc
    found = decode(tighten(picture, [box])[0]).astype(bool)
    assert (found & mask).sum() > 0.97 * (found | mask).sum()


@pytest.mark.parametrize("factor", [5, 12])
def test_a_large_picture_is_cut_at_a_small_size(disc, factor):
    picture, mask, _ = disc
    large, truth = (
        np.kron(array, np.ones(shape, np.uint8))
        for array, shape in ((picture, (factor, factor, 1)), (mask, (factor,) * 2))
    )
    box = encode(box_mask(np.array((50, 20, 91, 61)) * factor, 90 * factor, 120 * factor))
    found = decode(tighten(large, [box])[0])
    assert (found & truth).sum() > 0.95 * (found | truth).sum()


def test_masks_lie_within_their_boxes():
    pytest.importorskip("cv2")
    square = np.full((900, 1200, 3), 115, np.uint8)
    square[200:610, 500:910] = 200, 60, 50
    box = encode(box_mask((501, 201, 909, 609), 900, 1200))  # a pixel of what is cut is larger than what sticks out
    assert tighten(square, [box]) == (box,)


def test_masks_are_the_same_in_any_company(disc):
    patches = np.random.default_rng(2).integers(0, 256, (15, 20, 3), np.uint8)
    found = tighten(np.kron(patches, np.ones((6, 6, 1), np.uint8)), [disc[2]] * 12)
    assert len(set(found)) == 1 and found[0] != disc[2]


@pytest.mark.parametrize(
    "box", [(0, 0, 120, 90), (3, 3, 4, 4), (118, 88, 120, 90)], ids=["whole", "one pixel", "in a corner"]
)
def test_the_box_stays_where_nothing_is_found(disc, box):
    flat, region = np.full((90, 120, 3), 90, np.uint8), encode(box_mask(box, 90, 120))
    assert tighten(flat, [region]) == (region,)


def test_a_small_part_of_the_box_is_not_taken_for_the_thing(disc):
    picture, mask, _ = disc
    box = encode(box_mask((20, 2, 120, 88), 90, 120))
    assert mask.sum() < 0.3 * decode(box).sum()
    assert tighten(picture, [box]) == (box,)


def test_a_region_without_any_pixel_stays_so(disc):
    empty = encode(np.zeros((90, 120), np.uint8))
    assert least_box(empty) == empty == tighten(disc[0], [empty])[0]


def test_without_opencv_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"needs the package cv2: pip install -e '\.\[assist\]'"):
        tighten(np.zeros((9, 9, 3), np.uint8), [])
