from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco

from smolrgpt_jax.data import masks
from smolrgpt_jax.data.records import RLE

RECORDS = Path(__file__).parents[1] / "data_files" / "real_warehouse" / "records_with_masks.json"
SMALL = hnp.arrays(np.uint8, st.tuples(st.integers(1, 70), st.integers(1, 70)), elements=st.integers(0, 1))


def rle_of(mask):
    return RLE(*mask.shape, coco.encode(np.asfortranarray(mask))["counts"])


def test_decodes_real_masks_as_cocoapi():
    for record in json.loads(RECORDS.read_text())[:3]:
        for mask in record["rle"]:
            ours = masks.decode(RLE(*mask["size"], mask["counts"].encode()))
            np.testing.assert_array_equal(ours, coco.decode(mask))


@given(SMALL)
def test_decode_inverts_encode(mask):
    np.testing.assert_array_equal(masks.decode(rle_of(mask)), mask)


@settings(deadline=None)
@given(SMALL, st.integers(1, 33))
def test_resampling_an_encoded_mask_equals_resampling_the_dense_one(mask, grid):
    np.testing.assert_array_equal(masks.resample_rle(rle_of(mask), grid), masks.resample(mask, grid))


@pytest.mark.parametrize("size", [(1080, 1920), (144, 256), (37, 101), (64, 64), (7, 5), (1, 1), (65, 63)])
@pytest.mark.parametrize("grid", [64, 32, 7])
def test_resample_equals_torch(size, grid):
    torch = pytest.importorskip("torch")
    dense = np.random.default_rng(sum(size)).random((*size, 2)) < 0.5
    expected = (
        torch.nn.functional.interpolate(
            torch.tensor(dense.transpose(2, 0, 1)[None].astype(np.float32)),
            size=(grid, grid),
            mode="bilinear",
            align_corners=False,
            antialias=False,
        )[0]
        .numpy()
        .transpose(1, 2, 0)
    )
    ours = masks.resample(dense, grid)
    assert ours.dtype == np.float32
    # The positions are computed alike; only the order of the final additions may differ.
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(ours[..., 1], masks.resample(dense[..., 1], grid))


def test_resample_takes_no_average_over_skipped_pixels():
    mask = np.zeros((80, 80))
    mask[:, 1] = 1  # between the sampled columns 4 and 5, 14 and 15, ...
    assert masks.resample(mask, 8).max() == 0


def test_box_mask_takes_the_pixels_whose_centres_it_covers():
    assert masks.box_mask((1, 0, 3, 2), 3, 4).tolist() == [[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]]
    assert masks.box_mask((0.6, 0.4, 2.4, 9), 2, 3).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert masks.box_mask((1.6, 0, 1.7, 1), 1, 3).tolist() == [[0, 1, 0]]
    for box in ((2, 0, 1, 1), (5, 0, 6, 1), (0, 0, 0, 1), (-3, 0, -1, 1)):
        with pytest.raises(ValueError, match="box"):
            masks.box_mask(box, 2, 4)


def test_centroid_is_x_and_y():
    mask = np.zeros((4, 6))
    mask[1, 2:5] = 1
    assert masks.centroid(mask) == (3.0, 1.0)
    with pytest.raises(ValueError, match="empty"):
        masks.centroid(np.zeros((2, 2)))
