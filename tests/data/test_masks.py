from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.masks import RLE
from smolrgpt_jax.data.regions import read_boxes, read_masks
from smolrgpt_jax.errors import DataError

RECORDS = Path(__file__).parents[1] / "data_files" / "real_warehouse" / "records_with_masks.json"
COUNTS = coco.encode(np.asfortranarray([[0, 1, 1], [0, 0, 1]], dtype=np.uint8))["counts"]
# One run of 6 pixels and 64 of 2**58: in 64 bits their sum wraps around to the 6 pixels of the mask.
WRAPPING = b"6" + 2 * (b"P" * 11 + b"8") + 62 * b"0"
SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=st.integers(0, 1))


def rle_of(mask):
    return RLE(*mask.shape, coco.encode(np.asfortranarray(mask))["counts"])


def torch_resample(dense, grid):
    """Masks [R, H, W] as the PyTorch release resizes them: float32[R, grid, grid]."""
    torch = pytest.importorskip("torch")
    values = torch.tensor(np.ascontiguousarray(dense, np.float32))[None]
    resized = torch.nn.functional.interpolate(
        values, size=(grid, grid), mode="bilinear", align_corners=False, antialias=False
    )
    return resized[0].numpy()


def drawn_mask(rng):
    """A mask of 1x1 to 1080x1920 pixels of some kind, uint8[H, W]."""
    height, width = (int(np.exp(rng.uniform(0, np.log(side + 1)))) for side in (1080, 1920))
    mask = np.zeros((height, width), np.uint8)
    kind = rng.choice(["empty", "full", "pixel", "rows", "columns", "box", "noise"])
    if kind == "full":
        mask[:] = 1
    elif kind == "pixel":
        mask[rng.integers(height), rng.integers(width)] = 1
    elif kind == "rows":
        mask[rng.integers(2) :: rng.integers(2, 9)] = 1
    elif kind == "columns":
        mask[:, rng.integers(2) :: rng.integers(2, 9)] = 1
    elif kind == "box":
        mask[rng.integers(height) :, : rng.integers(1, width + 1)] = 1
    elif kind == "noise":
        mask[:] = rng.random(mask.shape) < rng.random()
    return mask


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.integers(0, 1)))
def test_runs_are_those_of_cocoapi(mask):
    counts = coco.encode(np.asfortranarray(mask))["counts"]
    flat = mask.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate(([0], flat))))
    expected = np.diff(np.concatenate(([0], changes, [flat.size])))
    np.testing.assert_array_equal(RLE(*mask.shape, counts).runs(), expected)


def test_runs_of_real_masks_have_cocoapis_area():
    masks = [mask for record in json.loads(RECORDS.read_text()) for mask in record["rle"]]
    assert len(masks) > 30
    for mask in masks:
        assert RLE(*mask["size"], mask["counts"].encode()).runs()[1::2].sum() == coco.area(mask)


@pytest.mark.parametrize(
    "counts", [b"", b"\x7f12", b" 1", COUNTS[:-1], COUNTS + b"1", b"o" * 4, b"o" * 40 + b"1", b"O", WRAPPING]
)
def test_unreadable_counts_are_an_error(counts):
    with pytest.raises(ValueError):
        RLE(2, 3, counts).runs()


def test_decodes_real_masks_as_cocoapi():
    for record in json.loads(RECORDS.read_text())[:3]:
        for mask in record["rle"]:
            ours = masks.decode(RLE(*mask["size"], mask["counts"].encode()))
            np.testing.assert_array_equal(ours, coco.decode(mask))


@settings(deadline=None)
@given(SMALL)
def test_encode_and_decode_are_those_of_cocoapi(mask):
    np.testing.assert_array_equal(masks.decode(rle_of(mask)), mask)
    assert masks.encode(mask) == rle_of(mask)


def test_polygons_are_drawn_as_by_cocoapi():
    rng = np.random.default_rng(0)
    for number in range(400):
        height, width = map(int, rng.integers(1, 90, 2))
        points = (rng.random((rng.integers(3, 9), 2)) * 1.6 - 0.3) * (width, height)
        points = points.round(number % 3).ravel().tolist()
        expected = coco.frPyObjects([points], height, width)[0]["counts"]
        assert masks.encode_polygon(points, height, width).counts == expected


def test_a_polygon_far_outside_takes_no_memory():
    with pytest.raises(ValueError, match="far outside of the picture"):
        masks.encode_polygon([0, 0, 1e15, 0, 0, 9], 9, 9)


def test_an_outline_that_runs_to_and_fro_takes_no_memory():
    with pytest.raises(ValueError, match="outline is more than 100 times as long as the picture's sides"):
        masks.encode_polygon([-9000, 5, 9000, 6] * 100, 360, 640)


def test_the_union_of_polygons_is_that_of_cocoapi():
    rng = np.random.default_rng(1)
    for _ in range(400):
        height, width = map(int, rng.integers(1, 40, 2))
        shapes = (rng.random((rng.integers(1, 6), 4, 2)) * 1.6 - 0.3) * (width, height)
        parts = coco.frPyObjects([shape.ravel().tolist() for shape in shapes], height, width)
        found = masks.union([masks.encode_polygon(shape.ravel(), height, width) for shape in shapes])
        assert found.counts == coco.merge(parts)["counts"]


def test_many_polygons_of_a_large_picture_take_no_memory():
    tracemalloc.start()
    try:
        read_masks([[[0, 0, 9, 0, 9, 9]] * 10], (8000, 8000))
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 1], np.uint8), [0, 1]),
        (np.array([0, 127, 128, 255], np.uint8), [0, 0, 1, 1]),
        (np.array([0, 3, 9], np.uint8), [0, 1, 1]),
        (np.array([0.0, 3.0, 2.0]), [0, 1, 1]),
        (np.array([0, 32767, 32768, 65535], np.uint16), [0, 0, 1, 1]),
        (np.array([0, 0.49, 0.5, np.nan]), [0, 0, 1, 0]),
        (np.array([True, False]), [1, 0]),
    ],
)
def test_a_pixel_is_inside_from_half_of_the_scale_on(values, expected):
    assert masks.inside(values).tolist() == expected


@settings(deadline=None)
@given(SMALL, st.integers(1, 33))
def test_resampling_an_encoded_mask_equals_resampling_the_dense_one(mask, grid):
    np.testing.assert_array_equal(masks.resample_rle(rle_of(mask), grid), masks.resample(mask, grid))


@pytest.mark.parametrize("size", [(1080, 1920), (144, 256), (37, 101), (64, 64), (7, 5), (1, 1), (65, 63)])
@pytest.mark.parametrize("grid", [64, 32, 7])
def test_resample_equals_torch(size, grid):
    dense = np.random.default_rng(sum(size)).random((*size, 2)) < 0.5
    expected = torch_resample(dense.transpose(2, 0, 1), grid).transpose(1, 2, 0)
    ours = masks.resample(dense, grid)
    assert ours.dtype == np.float32
    # Nothing is rounded on a grid that is a power of two; on another one PyTorch's kernels differ from one another.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6 if grid == 7 else 0)
    np.testing.assert_array_equal(ours[..., 1], masks.resample(dense[..., 1], grid))


def test_sampling_the_runs_of_real_masks_equals_torch_on_the_decoded_ones():
    encoded = [mask for record in json.loads(RECORDS.read_text()) for mask in record["rle"]]
    assert len(encoded) == 41
    for mask in encoded:
        ours = masks.resample_rle(RLE(*mask["size"], mask["counts"].encode()), 64)
        np.testing.assert_array_equal(ours, torch_resample(coco.decode(mask)[None], 64)[0])


def test_sampling_the_runs_of_drawn_masks_equals_torch_on_the_decoded_ones():
    rng = np.random.default_rng(0)
    largest = np.ones((1080, 1920), np.uint8)
    largest[::7, 3::5] = 0
    for mask in [np.ones((1, 1), np.uint8), np.zeros((1, 1), np.uint8), largest] + [
        drawn_mask(rng) for _ in range(1000)
    ]:
        encoded = coco.encode(np.asfortranarray(mask))
        ours = masks.resample_rle(RLE(*mask.shape, encoded["counts"]), 64)
        np.testing.assert_array_equal(ours, torch_resample(coco.decode(encoded)[None], 64)[0])


def test_resample_takes_no_average_over_skipped_pixels():
    mask = np.zeros((80, 80))
    mask[:, 1] = 1  # between the sampled columns 4 and 5, 14 and 15, ...
    assert masks.resample(mask, 8).max() == 0


def test_box_mask_takes_the_pixels_whose_centres_it_covers():
    assert masks.box_mask((1, 0, 3, 2), 3, 4).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert masks.box_mask((0.6, 0.4, 2.4, 9), 2, 3).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert masks.box_mask((1.6, 0, 1.7, 1), 1, 3).tolist() == [[0, 1, 0]]
    infinite, unknown = float("inf"), float("nan")
    outside = ((2, 0, 1, 1), (5, 0, 6, 1), (0, 0, 0, 1), (-3, 0, -1, 1))
    for box in (*outside, (0, 0, infinite, 1), (-infinite, 0, 1, 1), (0, unknown, 1, 1)):
        with pytest.raises(ValueError, match="box"):
            masks.box_mask(box, 2, 4)


@pytest.mark.parametrize("box", [["\0", 1, 5, 5], [1, 2, 3, "4\n\x1b[2J"], "1,2,3,4"])
def test_a_box_that_is_none_is_shown_on_one_line(box):
    with pytest.raises(DataError, match="^box .* is not x1,y1,x2,y2 with .* 9x8 pixels$") as caught:
        read_boxes([box], (8, 9))
    assert str(caught.value).isprintable()
