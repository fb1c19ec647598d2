"""Region features: by hand, and from pictures and masks through the whole model against live PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

from smolrgpt_jax import load
from smolrgpt_jax.config import DecoderConfig, SmolRGPTConfig, VisionConfig
from smolrgpt_jax.models.mask_pooling import mask_pooling

MODULE_TOLERANCE = 1e-5
CONFIG = SmolRGPTConfig(
    vision=VisionConfig(width=16, mlp_width=24, heads=2, layers=1, patch_size=8, image_size=48),
    decoder=DecoderConfig(width=24, mlp_width=24, heads=3, kv_heads=1, layers=1, vocab_size=131),
)


def test_mean_under_each_mask():
    features = np.arange(2 * 16 * 3, dtype=np.float32).reshape(2, 16, 3)
    masks = np.zeros((2, 2, 4, 4), np.float32)
    masks[0, 0, 0, :2] = 1
    masks[1, 1, 3, 3] = 0.25
    pooled = np.asarray(mask_pooling(features, masks))
    np.testing.assert_allclose(pooled[0, 0], features[0, :2].mean(0), rtol=1e-6)
    np.testing.assert_allclose(pooled[1, 1], features[1, 15], rtol=1e-6)


def test_an_empty_mask_pools_to_zeros():
    pooled = mask_pooling(np.ones((1, 16, 3), np.float32), np.zeros((1, 5, 4, 4), np.float32))
    np.testing.assert_array_equal(pooled, np.zeros((1, 5, 3)))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    pytest.importorskip("torch")
    from convert.torch_model import random_torch

    folder = tmp_path_factory.mktemp("pooling") / "torch"
    theirs = random_torch(CONFIG, 0)
    theirs.save(folder)
    return load(folder), theirs


def arguments(masks):
    """A batch with one sample per array of masks, every region named in its text; left-padded."""
    rng = np.random.default_rng(0)
    vocab, size = CONFIG.decoder.vocab_size, CONFIG.vision.image_size
    length = 2 + CONFIG.image_tokens + 3 * 15
    ids = np.full((len(masks), length), 2, np.int32)
    valid = np.zeros_like(ids)
    for row, mask in enumerate(masks):
        regions = [[vocab - 2, vocab - 1, 5]] * mask.shape[-1]
        tokens = np.concatenate([[7], [vocab - 3] * CONFIG.image_tokens, *regions, [8]])
        ids[row, -len(tokens) :] = tokens
        valid[row, -len(tokens) :] = 1
    images, depths = rng.uniform(-1, 1, (2, len(masks), size, size, 3)).astype(np.float32)
    return ids, valid, images, depths, masks


def assert_same(models, masks):
    """Region features and logits of a batch; returns ours and, for every region, whether it vanished."""
    ours, theirs = (model.forward(*arguments(masks)) for model in models)
    for name in ("region_rgb", "region_depth"):
        assert ours[name].shape == theirs[name].shape == (sum(m.shape[-1] for m in masks), 24)
        assert np.abs(ours[name] - theirs[name]).max() <= MODULE_TOLERANCE * np.abs(theirs[name]).max()
        np.testing.assert_array_equal(ours[name].any(1), theirs[name].any(1))
    valid = arguments(masks)[1] != 0
    difference = np.abs(ours["logits"] - theirs["logits"])[valid].max()
    assert difference <= 1e-4 * np.abs(theirs["logits"][valid]).max()
    return ours, ~ours["region_rgb"].any(1)


def some(rng, height, width, regions, share=0.3):
    return rng.random((height, width, regions)) < share


def test_batches_in_which_every_sample_has_another_number_of_regions(models):
    """0 to 15 regions, and every picture of its own odd size."""
    rng = np.random.default_rng(1)
    masks = [some(rng, 30 + 7 * n, 91 - 5 * n, n) for n in range(16)]
    assert_same(models, masks)


@pytest.mark.parametrize("count", [1, 15])
def test_one_sample(models, count):
    assert_same(models, [some(np.random.default_rng(count), 37, 53, count)])


def test_odd_sizes(models):
    """One pixel, single rows and columns, smaller and larger than the grid, the grid's own, the data
    set's."""
    grid = CONFIG.mask_grid
    small = [(1, 1), (1, 200), (200, 1), (5, 3), (grid, grid), (grid + 1, grid - 1)]
    sizes = [*small, (1081, 333), (1080, 1920)]
    rng = np.random.default_rng(2)
    _, vanished = assert_same(models, [some(rng, *size, 3, share=0.6) for size in sizes])
    assert vanished.sum() <= 3  # of the single pixel only


def test_empty_and_vanishing_masks(models):
    """Empty masks, and lines that fall between the sampled rows, pool to zeros in both; their neighbours do
    not."""
    grid = CONFIG.mask_grid
    size = 10 * grid
    lines = np.zeros((size, size, 4), np.uint8)
    lines[1::10, :, 0] = 1  # rows 4 and 5 of every ten are sampled
    lines[:, 8::10, 1] = 1
    lines[4::10, :, 2] = 1
    lines[0, 0, 3] = 1
    empty = np.zeros((33, 44, 2), bool)
    full = np.ones((33, 44, 2), bool)
    out, vanished = assert_same(models, [lines, empty, full])
    assert vanished.tolist() == [True, True, False, True, True, True, False, False]
    np.testing.assert_array_equal(out["region_rgb"][vanished], 0.0)


def test_a_single_pixel(models):
    """Of a picture no larger than the grid, every pixel counts, also in the corners."""
    grid = CONFIG.mask_grid
    masks = np.zeros((grid, grid, 4), bool)
    masks[[0, 0, -1, -1], [0, -1, 0, -1], range(4)] = True
    out, vanished = assert_same(models, [masks])
    assert not vanished.any()
    corners = out["rgb_refined"].reshape(grid, grid, -1)[[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(out["region_rgb"], corners, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_masks_of_any_dtype(models, dtype):
    mask = some(np.random.default_rng(3), 37, 53, 15).astype(dtype)
    expected = models[0].forward(*arguments([mask.astype(np.float32)]))["region_rgb"]
    np.testing.assert_array_equal(models[0].forward(*arguments([mask]))["region_rgb"], expected)
