from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import label

from eval.report.marks import draw_marks
from eval.report.overlay import COLOURS, colour_of
from smolrgpt_jax.data.masks import RLE, encode


@pytest.fixture
def grey() -> Image.Image:
    return Image.new("L", (200, 120), 100)


def changed(picture: Image.Image) -> np.ndarray:
    return (np.asarray(picture) != 100).any(-1)


def of_colour(picture: Image.Image, index: int) -> np.ndarray:
    return (np.asarray(picture) == colour_of(index)).all(-1)


def test_an_outline_lies_right_around_its_region_in_its_colour(grey, box_rle):
    drawn = draw_marks(grey, [box_rle(40, 20, 160, 110, 120, 200)])
    assert drawn.size == grey.size and drawn.mode == "RGB"
    ring = of_colour(drawn, 0)
    assert ring[18:20, 38:162].all() and ring[110:112, 38:162].all()
    assert ring[18:112, 38:40].all() and ring[18:112, 160:162].all()
    assert not changed(drawn)[:18].any() and not changed(drawn)[:, :38].any() and not changed(drawn)[:, 162:].any()
    # What lies in it can be seen, but for the number in its middle.
    inside = changed(drawn)[20:110, 40:160]
    rows, columns = np.nonzero(inside)
    assert inside.mean() < 0.05 and abs(rows.mean() - 45) < 3 and abs(columns.mean() - 60) < 3


def test_a_region_at_the_edge_is_outlined_within_the_picture(grey, box_rle):
    ring = of_colour(draw_marks(grey, [box_rle(0, 0, 200, 120, 120, 200)]), 0)
    assert ring[:2].all() and ring[-2:].all() and ring[:, :2].all() and ring[:, -2:].all() and ring.mean() < 0.1


@pytest.mark.parametrize("size", [1, 3, 8])
@pytest.mark.parametrize("place", [(100, 60), (0, 0), (190, 110)])
def test_the_number_of_a_tiny_region_stands_beside_it(grey, box_rle, size, place):
    x, y = place
    drawn = draw_marks(grey, [box_rle(x, y, x + size, y + size, 120, 200)])
    touched = changed(drawn)
    assert touched.sum() > 60
    at_edge = place != (100, 60)
    assert at_edge or not touched[y : y + size, x : x + size].any()
    digits = np.argwhere(bright(drawn))
    assert len(digits) and np.abs(digits.mean(0) - (y, x)).max() < 40


def test_the_number_of_a_small_region_stands_close_and_where_there_is_room(grey, box_rle):
    top = np.argwhere(bright(draw_marks(grey, [box_rle(85, 45, 115, 75, 120, 200)])))
    assert top[:, 0].max() < 45 and top[:, 0].max() > 45 - 14
    # A neighbour above: below it.
    both = bright(draw_marks(grey, [box_rle(85, 45, 115, 75, 120, 200), box_rle(85, 20, 115, 40, 120, 200)]))
    assert both[75:100, 85:115].any() and not both[45:75, 85:115].any()


def test_every_region_has_its_own_number_wherever_the_others_lie(grey, box_rle):
    first, second = box_rle(10, 10, 80, 50, 120, 200), box_rle(110, 60, 190, 110, 120, 200)
    one, other = (bright(draw_marks(grey, regions)) for regions in ([first, second], [second, first]))
    for drawn in (one, other):
        assert drawn[10:50, 10:80].any() and drawn[60:110, 110:190].any()
    assert not np.array_equal(one[10:50, 10:80], other[10:50, 10:80])


def bright(drawn: Image.Image) -> np.ndarray:
    """Where digits are."""
    return (np.asarray(drawn) > 170).all(-1)


def numbers_seen(drawn: Image.Image) -> int:
    """How many numbers stand apart: dark grounds, each in a frame."""
    parts, found = label((np.asarray(drawn) == (18, 20, 24)).all(-1) | bright(drawn), np.ones((3, 3)))
    return sum((parts == part + 1).sum() > 60 for part in range(found))


@pytest.mark.parametrize("count", [2, 3, 12])
def test_numbers_of_regions_at_the_same_place_do_not_cover_each_other(box_rle, count):
    wide = Image.new("L", (640, 360), 100)
    assert numbers_seen(draw_marks(wide, [box_rle(300, 160, 340, 200, 360, 640)] * count)) == count
    assert numbers_seen(draw_marks(wide, [box_rle(320, 180, 323, 183, 360, 640)] * count)) == count


def test_many_regions_each_get_a_number_and_colours_start_over(box_rle):
    wide = Image.new("L", (960, 540), 100)
    regions = [
        box_rle(20 + 90 * column, 30 + 80 * row, 60 + 90 * column, 60 + 80 * row, 540, 960)
        for row in range(6)
        for column in range(10)
    ]
    drawn = draw_marks(wide, regions)
    assert numbers_seen(drawn) == 60
    for index in (0, 9, 10, 59):
        x, y = 20 + 90 * (index % 10), 30 + 80 * (index // 10)
        assert of_colour(drawn, index)[y - 2, x + 10] and colour_of(index) == COLOURS[index % len(COLOURS)]


def test_a_phone_picture_on_its_side_is_marked_as_viewers_show_it(tmp_path, box_rle):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned to the right
    Image.new("RGB", (200, 120), (100, 100, 100)).save(tmp_path / "phone.jpg", exif=exif, quality=100)
    drawn = draw_marks(tmp_path / "phone.jpg", [box_rle(10, 20, 60, 180, 200, 120)])
    assert drawn.size == (120, 200)
    ring = of_colour(drawn, 0)
    assert ring[18, 30] and ring[181, 30] and ring[100, 8] and ring[100, 61] and not ring[100, 30]


def test_a_mask_of_another_size_is_stretched(grey, box_rle):
    ring = of_colour(draw_marks(grey, [box_rle(0, 0, 10, 12, 12, 20)]), 0)
    assert ring[:, 100:102].any(0).all() and not ring[:, 103:].any()


def test_an_empty_mask_has_no_mark_and_a_ragged_one_is_followed(grey):
    empty = RLE(120, 200, encode(np.zeros((120, 200), bool)).counts)
    assert not changed(draw_marks(grey, [empty])).any()
    mask = np.zeros((120, 200), bool)
    mask[20:100, 20:60] = mask[20:40, 20:180] = True
    ring = of_colour(draw_marks(grey, [encode(mask)]), 0)
    assert ring[41, 100] and ring[60, 61] and not ring[70, 100]


def test_the_picture_itself_is_not_changed(box_rle):
    picture = Image.new("RGB", (96, 60), (1, 2, 3))
    draw_marks(picture, [box_rle(10, 10, 60, 50)])
    assert (np.asarray(picture) == (1, 2, 3)).all()
