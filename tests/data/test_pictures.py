from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.pictures import FileLoader
from smolrgpt_jax.data.sources.warehouse import read_warehouse
from smolrgpt_jax.errors import DataError
from tests.data.row_cases import assert_same


@pytest.fixture
def pictures(filled):
    return read_warehouse(filled.root, "train")


def test_cached_pictures_are_the_same_and_bounded(pictures, tokenizer, shape):
    loader = FileLoader(shape, cached_pictures=2)
    cached = PackedRows(pictures, tokenizer, shape, load=loader)
    plain = PackedRows(pictures, tokenizer, shape)
    for index in [*range(len(plain)), *range(len(plain))]:
        assert_same(cached[index], plain[index])
    regions = pictures[0].questions[0].regions
    loader(pictures[0], regions)
    pictures[0].image.unlink()
    loader(pictures[0], regions)  # still known
    loader(pictures[1], ()), loader(pictures[2], ())
    with pytest.raises(DataError, match="missing"):
        loader(pictures[0], regions)


@pytest.mark.parametrize("with_depth", [True, False])
def test_a_mirrored_picture_is_the_same_left_for_right(pictures, shape, with_depth):
    loader = FileLoader(shape, cached_pictures=2)
    plain = pictures[0] if with_depth else dataclasses.replace(pictures[0], depth=None)
    regions = [region for question in plain.questions for region in question.regions]
    turned = loader(dataclasses.replace(plain, mirrored=True), regions)
    straight = loader(plain, regions)
    np.testing.assert_array_equal(turned.image, straight.image[:, ::-1])
    assert (turned.image != straight.image).any() and straight.masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(turned.masks, straight.masks[:, :, ::-1])
    assert (turned.masks != straight.masks).any()
    if with_depth:
        np.testing.assert_array_equal(turned.depth, straight.depth[:, ::-1])
    else:
        assert turned.depth is straight.depth is None
