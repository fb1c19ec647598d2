from __future__ import annotations

import pytest

from smolrgpt_jax.data.batches import PackedRows
from smolrgpt_jax.data.rows import FileLoader
from smolrgpt_jax.data.sources.formats import read_warehouse
from smolrgpt_jax.errors import DataError
from tests.data.row_cases import assert_same, row_of


@pytest.fixture
def pictures(filled):
    return read_warehouse(filled.root, "train")


def test_cached_pictures_are_the_same_and_bounded(pictures, tokenizer, shape):
    loader = FileLoader(shape, cached_pictures=2)
    cached = PackedRows(pictures, tokenizer, shape, load=loader)
    plain = PackedRows(pictures, tokenizer, shape)
    for index in [*range(len(plain)), *range(len(plain))]:
        assert_same(row_of(cached, index), row_of(plain, index))
    regions = pictures[0].questions[0].regions
    out = {key: value[0] for key, value in plain.empty(1).items()}
    loader.fill(out, 0, pictures[0], regions)
    pictures[0].image.unlink()
    loader.fill(out, 0, pictures[0], regions)  # still known
    loader.fill(out, 0, pictures[1], ()), loader.fill(out, 0, pictures[2], ())
    with pytest.raises(DataError, match="missing"):
        loader.fill(out, 0, pictures[0], regions)
