from __future__ import annotations

import numpy as np

from smolrgpt_jax.models.mask_pooling import mask_pooling


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
