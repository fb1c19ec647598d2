from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from eval.report.overlay import COLOURS, colour_of, draw_regions
from smolrgpt_jax.data.masks import RLE


@pytest.fixture
def grey() -> Image.Image:
    return Image.new("L", (200, 120), 100)


def test_a_region_is_outlined_in_its_colour_and_tinted_and_the_rest_left_alone(grey, box_rle):
    pixels = np.asarray(draw_regions(grey, [box_rle(40, 20, 160, 110, 120, 200)]))
    assert pixels.shape == (120, 200, 3) and pixels.dtype == np.uint8
    assert tuple(pixels[20, 45]) == tuple(pixels[100, 40]) == tuple(pixels[109, 159]) == colour_of(0)
    tint = pixels[100, 100].astype(int)
    assert (np.sign(tint - 100) == np.sign(np.array(colour_of(0)) - 100)).all()
    assert (np.abs(tint - 100) < np.abs(np.array(colour_of(0)) - 100)).all()
    assert (pixels[:19] == 100).all() and (pixels[:, 161:] == 100).all()


def test_every_region_gets_its_own_colour_and_label(grey, box_rle):
    first, second = box_rle(10, 10, 80, 50, 120, 200), box_rle(110, 60, 190, 110, 120, 200)
    both = np.asarray(draw_regions(grey, [first, second]))
    assert tuple(both[11, 10]) == colour_of(0) and tuple(both[61, 110]) == colour_of(1)
    # A label has white letters on a dark ground, and the second differs from the first.
    swapped = np.asarray(draw_regions(grey, [second, first]))
    for pixels in (both, swapped):
        assert (pixels[10:50, 10:80] == 255).all(-1).any() and (pixels[60:110, 110:190] == 255).all(-1).any()
    assert not np.array_equal((both[10:50, 10:80] == 255).all(-1), (swapped[10:50, 10:80] == 255).all(-1))


def test_labels_of_regions_at_the_same_place_do_not_cover_each_other(grey, box_rle):
    region = box_rle(60, 40, 140, 80, 120, 200)
    one, two = (
        (np.asarray(draw_regions(grey, regions)) > 160).all(-1).sum() for regions in ([region], [region, region])
    )
    assert two > 1.5 * one > 0


def test_the_result_has_the_wanted_width_and_a_small_mask_is_stretched(grey, box_rle):
    drawn = draw_regions(grey, [box_rle(0, 0, 10, 12, 12, 20)], width=400)
    assert drawn.size == (400, 240)
    pixels = np.asarray(drawn)
    assert tuple(pixels[100, 199]) == colour_of(0) and (pixels[100, 205] == 100).all()


@pytest.mark.parametrize("size", [(1, 9000), (9000, 1), (30, 100)])
def test_a_picture_of_any_shape_stays_small(size, box_rle):
    drawn = draw_regions(Image.new("L", size, 100), [box_rle(0, 0, *size, size[1], size[0])], 560)
    assert 1 <= drawn.width <= 560 and 1 <= drawn.height <= 4 * 560
    assert 560 == drawn.width or 4 * 560 == drawn.height


def test_an_empty_mask_and_more_regions_than_colours_are_drawn(grey, box_rle):
    empty = RLE(120, 200, box_rle(0, 0, 0, 0, 120, 200).counts)
    draw_regions(grey, [empty] + [box_rle(5 * k, 5, 5 * k + 30, 60, 120, 200) for k in range(len(COLOURS) + 2)])


def test_the_picture_itself_is_not_changed(box_rle):
    picture = Image.new("RGB", (96, 60), (1, 2, 3))
    draw_regions(picture, [box_rle(10, 10, 60, 50)])
    assert (np.asarray(picture) == (1, 2, 3)).all()
